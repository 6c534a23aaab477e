// One session on a sheet: facts, the last hour, orders, the end of the pod's log.
import { ask } from "./api.js";
import { draw } from "./charts.js";
import { confirm, ORDERS } from "./orders.js";
import { clock, costSoFar, dollars, percent, since, span } from "./words.js";

const LOG_LINES = 200;
const LOG_MS = 30_000;
const byId = (id) => document.getElementById(id);
const sheet = byId("detail");

export class Detail {
  constructor(sessions, hours) {
    this.sessions = sessions;
    this.hours = hours;
    this.id = null;
    byId("session-rows").addEventListener("click", ({ target }) => {
      const row = target.closest("[data-open]")?.closest("tr");
      if (row) this.open(row.dataset.id);
    });
    sheet.addEventListener("close", () => { this.id = null; });
    sheet.addEventListener("click", ({ target }) => { if (target === sheet) sheet.close(); });
    byId("log-again").addEventListener("click", () => this.readLog());
    setInterval(() => { if (this.id && !document.hidden) this.readLog(); }, LOG_MS);
  }

  open(id) {
    this.id = id;
    this.offered = null;
    byId("log").textContent = "";
    this.draw();
    sheet.showModal();
    this.readLog();
  }

  heard(things) {
    if (this.id && things.some(({ id }) => id === this.id)) this.draw();
  }

  draw() {
    if (!this.id) return;
    const session = this.sessions.known.get(this.id);
    if (!session) {
      byId("detail-state").textContent = "This session has ended.";
      byId("detail-actions").replaceChildren();
      return;
    }
    byId("detail-title").textContent = session.user;
    sheet.dataset.state = session.state;
    byId("detail-state").textContent = session.since ? `${session.state} for ${span(since(session.since))}` : session.state;
    this.facts(session);
    this.offer(session);
    const hour = this.hours.of(this.id);
    draw(byId("chart-use"), hour?.use, 100);
    draw(byId("chart-queue"), hour?.queue, 4);
    byId("detail-use").textContent = percent(session.utilization_percent);
    byId("detail-queue").textContent = session.queue ?? "–";
  }

  facts(session) {
    const rate = session.cost_per_hour_usd;
    const told = [
      ["Pod", session.pod ?? "none"],
      ["RunPod id", session.pod_id ?? "–"],
      ["GPU", session.gpu ?? "–"],
      ["Cost", rate === null ? "–" : `${dollars(costSoFar(session))} so far, ${dollars(rate)} an hour`],
      ["Ordered", session.ordered_at ? `${clock(session.ordered_at)} UTC` : "–"],
      ["New prompts go to", session.source === "private" ? "this pod" : "the shared servers"],
      ["Unfinished prompts", String(session.prompts)],
      ["Came here by", session.cause ?? "–"],
      ["Last decision", session.verdict ?? "–"],
      ["Ends if idle", session.idle_ends_at ? `${clock(session.idle_ends_at)} UTC` : "–"],
    ];
    byId("detail-facts").replaceChildren(...told.map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      [pair.firstChild.textContent, pair.lastChild.textContent] = [name, value];
      return pair;
    }));
  }

  // Left as they are where nothing changes: a button must not lose the keyboard's focus.
  offer(session) {
    const names = Object.keys(ORDERS).filter((name) => ORDERS[name].states.includes(session.state));
    if (this.offered === names.join()) return;
    this.offered = names.join();
    byId("detail-actions").replaceChildren(...names.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = ORDERS[name].label;
      button.className = ORDERS[name].isGrave ? "grave" : "";
      button.addEventListener("click", () => confirm(name, this.sessions.known.get(this.id) ?? session));
      return button;
    }));
  }

  async readLog() {
    const id = this.id;
    const note = byId("log-note");
    const log = byId("log");
    if (!this.sessions.known.get(id)?.pod) {
      note.textContent = "There is no pod whose log could be read.";
      return;
    }
    if (!log.textContent) note.textContent = "Reading…";
    try {
      const { lines } = await ask(`/sessions/${id.replace(/^session\//, "")}/log?lines=${LOG_LINES}`);
      if (this.id !== id) return;
      const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      log.textContent = lines.join("\n");
      note.textContent = lines.length ? "" : "The log is empty.";
      if (isAtEnd) log.scrollTop = log.scrollHeight;
    } catch (error) {
      if (this.id === id) note.textContent = error.message;
    }
  }
}
