// The table of sessions: one row each, changed where something changed, a few milliseconds in each frame.
import { draw } from "./charts.js";
import { clock, costSoFar, dollars, now, percent, since, span } from "./words.js";

const FRAME_MS = 5;
const TICK_MS = 10_000;
const template = document.getElementById("session-row");
const body = document.getElementById("session-rows");
const byId = (id) => document.getElementById(id);

function put(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

export class Sessions {
  constructor(hours) {
    this.hours = hours;
    this.known = new Map();
    this.rows = new Map();
    this.waiting = new Set();
    this.isOrdered = true;
    this.wanted = "";
    byId("find").addEventListener("input", ({ target }) => {
      this.wanted = target.value.trim().toLowerCase();
      for (const [id, row] of this.rows) row.hidden = !this.fits(id);
      this.sayCount();
    });
    setInterval(() => this.all(), TICK_MS);
  }

  replace(list) {
    const ids = new Set(list.map((one) => one.id));
    for (const id of [...this.known.keys()]) if (!ids.has(id)) this.remove(id);
    for (const one of list) this.change(one);
    // Rows of the page's load that are no more.
    for (const row of [...body.rows]) if (!ids.has(row.dataset.id)) row.remove();
    this.sayCount();
  }

  change(fields) {
    const session = { ...this.known.get(fields.id), ...fields };
    this.known.set(fields.id, session);
    this.hours.note(fields.id, session);
    this.later(fields.id);
  }

  remove(id) {
    this.known.delete(id);
    this.hours.forget(id);
    this.rows.get(id)?.remove();
    this.rows.delete(id);
    this.waiting.delete(id);
    this.sayCount();
  }

  all() {
    for (const [id, session] of this.known) {
      this.hours.note(id, session);
      this.later(id);
    }
  }

  later(id) {
    this.waiting.add(id);
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = null;
    const began = performance.now();
    for (const id of this.waiting) {
      this.waiting.delete(id);
      this.show(id, this.known.get(id));
      if (performance.now() - began > FRAME_MS) break;
    }
    if (this.waiting.size) this.frame = requestAnimationFrame(() => this.paint());
    else this.order();
    this.sayCount();
  }

  show(id, session) {
    let row = this.rows.get(id);
    if (!row) {
      row = [...body.rows].find((one) => one.dataset.id === id) ?? template.content.firstElementChild.cloneNode(true);
      row.dataset.id = id;
      row.cells_ = Object.fromEntries([...row.querySelectorAll("[data-is]")].map((one) => [one.dataset.is, one]));
      row.querySelector("[data-open]").setAttribute("aria-label", `Details of ${session.user}`);
      this.rows.set(id, row);
      if (!row.isConnected) body.append(row);
      this.isOrdered = false;
    }
    if (row.dataset.state !== session.state) {
      row.dataset.state = session.state;
      this.isOrdered = false;
    }
    const cells = row.cells_;
    put(cells.user, session.user);
    put(cells.kind, session.kind === "named" ? "" : session.kind);
    put(cells.state, session.state);
    put(cells.since, session.since ? span(since(session.since)) : "");
    put(cells.gpu, session.pod ? session.gpu ?? "GPU not known yet" : "Shared server");
    put(cells.pod, session.pod ?? "");
    put(cells.use, percent(session.utilization_percent));
    put(cells.queue, session.queue === null ? "–" : String(session.queue));
    put(cells.cost, dollars(costSoFar(session)));
    put(cells.rate, session.cost_per_hour_usd === null ? "" : `${dollars(session.cost_per_hour_usd)}/h`);
    put(cells.why, this.why(session));
    put(cells.prompts, session.prompts ? `${session.prompts} unfinished` : "");
    put(cells.idle, this.idle(session));
    const hour = this.hours.of(id);
    draw(cells["use-chart"], hour?.use, 100);
    draw(cells["queue-chart"], hour?.queue, 4);
    row.hidden = !this.fits(id);
  }

  why(session) {
    const words = session.verdict ?? session.cause ?? "";
    if (words) return session.state === "ready" && session.verdict ? `kept: ${words}` : words;
    return session.prompts ? "no private pod" : "";
  }

  idle(session) {
    if (!session.idle_ends_at) return "";
    const left = (Date.parse(session.idle_ends_at) - now()) / 1000;
    return `idle, ends in ${span(left)} (${clock(session.idle_ends_at).slice(6)} UTC)`;
  }

  // Those with a pod first, then by name.
  order() {
    if (this.isOrdered) return;
    this.isOrdered = true;
    const rank = ({ pod, user }) => `${pod ? 0 : 1}${user}`;
    const ids = [...this.rows.keys()].sort((a, b) => rank(this.known.get(a)).localeCompare(rank(this.known.get(b))));
    ids.forEach((id, place) => {
      const row = this.rows.get(id);
      if (body.rows[place] !== row) body.insertBefore(row, body.rows[place]);
    });
  }

  fits(id) {
    const { user, pod, gpu, state } = this.known.get(id);
    return !this.wanted || `${user} ${pod ?? ""} ${gpu ?? ""} ${state}`.toLowerCase().includes(this.wanted);
  }

  sayCount() {
    const all = this.known.size;
    const fitting = this.wanted ? [...this.known.keys()].filter((id) => this.fits(id)).length : all;
    put(byId("session-count"), this.wanted ? `${fitting} of ${all}` : String(all));
    byId("no-sessions").hidden = all > 0;
    byId("session-table").hidden = all === 0 || fitting === 0;
    byId("none-fit").hidden = all === 0 || fitting > 0;
  }
}
