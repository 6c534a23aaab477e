// The gateway's badge inside ComfyUI. All words come from the gateway (core/life/badge.py); here they are only shown.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

const MESSAGE = "gateway.session";
const ADDRESS = "/gateway/api/v1/me/badge";
const STYLE = `
#gateway-badge { position: fixed; bottom: 10px; left: 50%; transform: translateX(-50%); z-index: 900; display: flex;
  flex-wrap: wrap; align-items: center; gap: 4px 10px; max-width: calc(100vw - 20px); padding: 4px 12px;
  font: 13px/1.5 system-ui, sans-serif; color: var(--fg-color, #ddd); background: var(--comfy-menu-bg, #222);
  border: 1px solid var(--border-color, #555); border-radius: 8px; }
#gateway-badge[hidden] { display: none; }
#gateway-badge.soon { border-color: var(--p-amber-500, #f59e0b); }
#gateway-badge .note { color: var(--descrip-text, #999); }
#gateway-badge .note:empty, #gateway-badge .actions:empty { display: none; }
#gateway-badge .actions { display: flex; gap: 6px; }
#gateway-badge button { padding: 1px 8px; font: inherit; color: inherit; cursor: pointer;
  background: var(--comfy-input-bg, #333); border: 1px solid var(--border-color, #555); border-radius: 6px; }
#gateway-badge button:focus-visible { outline: 2px solid var(--p-primary-color, #60a5fa); outline-offset: 1px; }
#gateway-badge .spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
`;

function child(parent, tag, className) {
  const made = parent.appendChild(document.createElement(tag));
  made.className = className;
  return made;
}

function asClock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

class Badge {
  constructor() {
    const style = document.head.appendChild(document.createElement("style"));
    style.textContent = STYLE;
    this.root = document.body.appendChild(document.createElement("section"));
    this.root.id = "gateway-badge";
    this.root.setAttribute("aria-label", "GPU");
    this.root.hidden = true;
    // What counts down is not spoken: a screen reader would read it out every second.
    this.words = child(this.root, "span", "words");
    this.words.setAttribute("aria-hidden", "true");
    this.note = child(this.root, "span", "note");
    this.note.setAttribute("aria-hidden", "true");
    this.spoken = child(this.root, "span", "spoken");
    this.spoken.setAttribute("role", "status");
    this.spoken.setAttribute("aria-live", "polite");
    this.actions = child(this.root, "span", "actions");
    this.state = null;
    this.offered = "";
    setInterval(() => this.draw(), 1000);
  }

  show(state) {
    this.state = state;
    this.endsAt = state.ends_in_s === null ? null : performance.now() / 1000 + state.ends_in_s;
    this.root.hidden = false;
    this.root.dataset.state = state.state;
    this.note.textContent = state.note;
    this.draw();
    const spoken = [this.words.textContent, state.note].filter(Boolean).join(", ");
    if (this.spoken.textContent !== spoken) this.spoken.textContent = spoken;
    this.offer(state.actions);
    if (state.toast) app.extensionManager?.toast?.add?.({ ...state.toast, life: 6000 });
  }

  draw() {
    if (this.state === null) return;
    const left = this.endsAt === null ? null : this.endsAt - performance.now() / 1000;
    const text = left === null ? this.state.text : this.state.text.replace("{left}", asClock(left));
    if (this.words.textContent !== text) this.words.textContent = text;
    const warnBelow = this.state.warn_below_s;
    this.root.classList.toggle("soon", left !== null && warnBelow !== null && left < warnBelow);
  }

  offer(actions) {
    // Left as they are where nothing changes: a button must not lose the keyboard's focus.
    const offered = JSON.stringify(actions);
    if (offered === this.offered) return;
    this.offered = offered;
    this.actions.replaceChildren();
    for (const action of actions) {
      const button = child(this.actions, "button", "");
      button.type = "button";
      button.textContent = action.label;
      button.addEventListener("click", () => this.act(button, action));
    }
  }

  async act(button, action) {
    button.disabled = true;
    try {
      const answer = await fetch(action.path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(action.body),
      });
      if (!answer.ok) {
        const said = await answer.json().catch(() => null);
        this.complain(action.label, said?.error?.message ?? `The gateway answered ${answer.status}.`);
      }
    } catch {
      this.complain(action.label, "The gateway cannot be reached.");
    } finally {
      button.disabled = false;
    }
  }

  complain(summary, detail) {
    app.extensionManager?.toast?.add?.({ severity: "error", summary, detail, life: 8000 });
    this.spoken.textContent = `${summary}: ${detail}`;
  }
}

app.registerExtension({
  name: "comfy_gateway.badge",
  setup() {
    const badge = new Badge();
    let introducedAs = null;

    // Listening first: the page takes a message that nobody listens to for an error.
    api.addEventListener(MESSAGE, ({ detail }) => badge.show(detail));

    async function introduce() {
      const clientId = api.clientId;
      if (!clientId || introducedAs === clientId) return;
      introducedAs = clientId;
      try {
        const answer = await fetch(`${ADDRESS}?clientId=${encodeURIComponent(clientId)}`, { method: "POST" });
        const told = answer.ok ? await answer.json() : null;
        if (told?.badge) badge.show(told.badge);
        if (!told?.is_heard) introducedAs = null;
      } catch {
        introducedAs = null;
      }
    }

    // The id comes with the first status, and each new socket begins with one.
    api.addEventListener("status", introduce);
    api.addEventListener("reconnecting", () => { introducedAs = null; });
    api.addEventListener("reconnected", () => { introducedAs = null; introduce(); });
    introduce();
  },
});
