// Puts the page together.
import { ask } from "./api.js";
import { Detail } from "./detail.js";
import { Duty } from "./duty.js";
import { Hours } from "./hours.js";
import { News } from "./news.js";
import { offerPromotion } from "./orders.js";
import { followRecords } from "./records.js";
import { Sessions } from "./sessions.js";
import { followSpend, showTiles } from "./tiles.js";

const hours = new Hours();
const sessions = new Sessions(hours);
const duty = new Duty();
const detail = new Detail(sessions, hours);
const link = document.getElementById("link");
let hasCharts = false;

async function readCharts() {
  try {
    hours.take(await ask("/charts"));
    hasCharts = true;
    sessions.all();
    detail.draw();
  } catch {
    // The lines begin now; the next stream asks again.
  }
}

function heard(name, things) {
  const isSession = ({ id }) => id.startsWith("session/");
  if (name === "first") {
    sessions.replace(things.filter(isSession));
    duty.replace(things.filter((one) => !isSession(one)));
    if (!hasCharts) readCharts();
  } else {
    for (const one of things) {
      const part = isSession(one) ? sessions : duty;
      if (one.is_gone) part.remove(one.id);
      else part.change(one);
    }
  }
  showTiles(sessions);
  detail.heard(things);
}

function standing(kind, words) {
  if (kind === "polling" || kind === "lost") hasCharts = false; // the hour has a gap that the gateway knows better
  link.dataset.kind = kind;
  const place = link.querySelector("span");
  if (place.textContent !== words) place.textContent = words;
}

offerPromotion();
followRecords();
followSpend();
new News({ heard, standing }).follow();
