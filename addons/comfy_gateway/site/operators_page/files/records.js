// Events, spend and prompts: tabs with filters, read when they are looked at.
import { ask } from "./api.js";
import { clock, span } from "./words.js";

const AGAIN_MS = 60_000;
const between = (from, to) => from && to ? span((Date.parse(to) - Date.parse(from)) / 1000) : "–";

const KINDS = {
  events: {
    rows: ({ events }) => events.map((one) => [clock(one.at), one.user, one.before, one.after, one.event, one.cause]),
    limit: 50,
  },
  spend: {
    rows: ({ spend }) => [...spend].reverse().map((one) => [one.day, one.user, one.usd.toFixed(4)]),
    note: ({ total_usd: usd, since, until }) => `$${usd.toFixed(2)} from ${since} to ${until}`,
    numbers: [2],
  },
  prompts: {
    rows: ({ prompts }) => prompts.map((one) => [
      clock(one.accepted_at), one.user ?? "–", one.source === "duty" ? `shared · ${one.server}` : one.server,
      one.replays ? `${one.outcome}, sent ${one.replays + 1} times` : one.outcome,
      between(one.accepted_at, one.started_at), between(one.started_at, one.ended_at), one.prompt_id,
    ]),
    limit: 50,
    numbers: [4, 5],
  },
};

class Records {
  constructor(panel) {
    this.panel = panel;
    this.kind = panel.dataset.records;
    this.shape = KINDS[this.kind];
    this.body = panel.querySelector("tbody");
    this.note = panel.querySelector("[data-note]");
    this.older = panel.querySelector("[data-older]");
    this.hasOlder = false;
    panel.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    this.older.addEventListener("click", () => this.read(this.next));
  }

  async read(before = null) {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(this.panel.querySelector("form"))) {
      if (value.trim()) query.set(name, value.trim());
    }
    if (this.shape.limit) query.set("limit", this.shape.limit);
    if (before !== null) query.set("before", before);
    this.asked = query.toString();
    if (!this.body.rows.length) this.note.textContent = "Reading…";
    const asked = this.asked;
    try {
      const said = await ask(`/${this.kind}?${asked}`);
      if (asked !== this.asked) return;
      this.show(said, before !== null);
    } catch (error) {
      this.note.textContent = error.message;
    }
  }

  show(said, isMore) {
    const rows = this.shape.rows(said).map((texts) => {
      const row = document.createElement("tr");
      texts.forEach((text, place) => {
        const cell = row.insertCell();
        cell.textContent = text;
        if (this.shape.numbers?.includes(place)) cell.className = "num";
      });
      return row;
    });
    if (isMore) this.body.append(...rows);
    else this.body.replaceChildren(...rows);
    this.hasOlder = isMore;
    this.next = said.next ?? null;
    this.older.hidden = this.next === null;
    this.note.textContent = this.shape.note?.(said) ?? "";
    this.panel.querySelector("[data-empty]").hidden = this.body.rows.length > 0;
    this.panel.querySelector(".scroll").hidden = this.body.rows.length === 0;
  }
}

export function followRecords() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const panels = new Map(tabs.map((tab) => [tab, new Records(document.getElementById(tab.getAttribute("aria-controls")))]));
  let chosen = tabs[0];
  function choose(tab) {
    chosen = tab;
    for (const one of tabs) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
      panels.get(one).panel.hidden = one !== tab;
    }
    panels.get(tab).read();
  }
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (!step) return;
      const next = tabs[(place + step + tabs.length) % tabs.length];
      next.focus();
      choose(next);
    });
  });
  choose(chosen);
  setInterval(() => {
    // Older pages that somebody reads stay as they are.
    if (!document.hidden && !panels.get(chosen).hasOlder) panels.get(chosen).read();
  }, AGAIN_MS);
}
