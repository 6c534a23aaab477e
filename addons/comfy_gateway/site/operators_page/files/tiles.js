// The four numbers at the top.
import { ask } from "./api.js";
import { count, dollars, now } from "./words.js";

const SPEND_MS = 5 * 60_000;
const put = (id, text) => {
  const place = document.getElementById(id);
  if (place.textContent !== text) place.textContent = text;
};

export function showTiles(sessions) {
  const all = [...sessions.known.values()];
  const pods = all.filter((one) => one.pod);
  const ready = pods.filter((one) => one.state === "ready").length;
  put("tile-pods", String(pods.length));
  put("tile-pods-note", pods.length ? `${ready} ready` : "none costs anything");
  put("tile-rate", dollars(pods.reduce((sum, one) => sum + (one.cost_per_hour_usd ?? 0), 0)));
  const waiting = all.reduce((sum, one) => sum + one.prompts, 0);
  put("tile-prompts", String(waiting));
  put("tile-prompts-note", waiting ? `of ${count(all.filter((one) => one.prompts).length, "user", "users")}` : "");
}

export async function followSpend() {
  for (;;) {
    const today = new Date(now()).toISOString().slice(0, 10);
    try {
      const { total_usd: usd } = await ask(`/spend?since=${today}&until=${today}`);
      put("tile-today", dollars(usd));
      put("tile-today-note", "since 00:00 UTC");
    } catch (error) {
      put("tile-today", "–");
      put("tile-today-note", error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, SPEND_MS));
  }
}
