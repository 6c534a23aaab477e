// Orders to a session, each confirmed before it is sent.
import { ask, order } from "./api.js";
import { count } from "./words.js";

const byId = (id) => document.getElementById(id);
const dialog = byId("confirm");

const unfinished = (session) => count(session.prompts, "unfinished prompt", "unfinished prompts");

export const ORDERS = {
  extend: {
    label: "Extend…",
    states: ["ready"],
    title: (session) => `Leave ${session.user}'s pod for longer?`,
    text: () => "An idle pod stays for so long from now, but never past its longest life or a budget.",
    yes: "Extend",
    hasMinutes: true,
    done: (session) => `${session.user}'s pod stays.`,
  },
  promote: {
    label: "Promote…",
    states: ["shared"],
    title: (session) => `Give ${session.user} a private pod?`,
    text: () => "A pod is ordered now. Caps and budgets hold; it costs money until it ends.",
    yes: "Promote",
    done: (session) => `A pod for ${session.user} is ordered.`,
  },
  drain: {
    label: "Drain…",
    states: ["booting", "verifying", "ready", "checking"],
    title: (session) => `Drain ${session.user}'s pod?`,
    text: (session) => `New prompts go to the shared servers at once. What runs (${unfinished(session)}) may end, files are kept, then the pod ends.`,
    yes: "Drain",
    done: (session) => `${session.user}'s pod is drained.`,
  },
  terminate: {
    label: "Terminate…",
    states: ["booting", "verifying", "ready", "draining", "checking"],
    title: (session) => `Terminate ${session.user}'s pod now?`,
    text: (session) => `Nothing is waited for. What runs there (${unfinished(session)}) is submitted once more on the shared servers.`,
    yes: "Terminate",
    isGrave: true,
    done: (session) => `${session.user}'s pod ends.`,
  },
};

let saying;
export function say(words) {
  const toast = byId("toast");
  toast.textContent = words;
  clearTimeout(saying);
  saying = setTimeout(() => { toast.textContent = ""; }, 6000);
}

// Opens the question; sends the order when it is answered by yes.
export function confirm(name, session) {
  const wanted = ORDERS[name];
  const yes = byId("confirm-yes");
  byId("confirm-title").textContent = wanted.title(session);
  byId("confirm-text").textContent = wanted.text(session);
  byId("confirm-fault").textContent = "";
  byId("confirm-minutes").hidden = !wanted.hasMinutes;
  byId("confirm-minutes").querySelector("input").disabled = !wanted.hasMinutes;
  yes.textContent = wanted.yes;
  yes.classList.toggle("grave", Boolean(wanted.isGrave));
  yes.disabled = false;
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    yes.disabled = true;
    byId("confirm-fault").textContent = "";
    const minutes = byId("confirm-minutes").querySelector("input").valueAsNumber;
    const id = session.id.replace(/^session\//, "");
    try {
      await order(`/sessions/${id}/${name}`, wanted.hasMinutes ? { minutes } : {});
      dialog.close();
      say(wanted.done(session));
    } catch (error) {
      byId("confirm-fault").textContent = error.message;
    } finally {
      yes.disabled = false;
    }
  };
  dialog.showModal();
  // What cannot be undone is not begun by a second press of the same key.
  dialog.querySelector(wanted.isGrave ? "[data-close]" : wanted.hasMinutes ? "input" : "#confirm-yes").focus();
}

// For somebody who is not in the list: their id is made as the API makes it.
export function offerPromotion() {
  byId("promote-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const user = new FormData(event.target).get("user").trim();
    if (!user) return;
    const key = user.includes(":") ? user : `named:${user}`;
    const id = btoa(String.fromCharCode(...new TextEncoder().encode(key)))
      .replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
    try {
      confirm("promote", await ask(`/sessions/${id}`));
    } catch (error) {
      say(error.message);
    }
  });
  for (const button of document.querySelectorAll("dialog [data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}
