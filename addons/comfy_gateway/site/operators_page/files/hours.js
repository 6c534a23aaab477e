// The last hour of each pod by minutes: asked for at times, and kept up to date by what the stream tells.
import { now } from "./words.js";

const MINUTES = 60;
const minuteOf = (ms) => Math.floor(ms / 60_000);

export class Hours {
  constructor() {
    this.kept = new Map();
  }

  // An answer of /charts.
  take({ until, charts }) {
    const last = minuteOf(Date.parse(until));
    for (const { id, utilization_percent: use, queue } of charts) this.kept.set(`session/${id}`, { last, use, queue });
  }

  // What is true of a session now.
  note(id, session) {
    if (!session.pod) {
      this.kept.delete(id);
      return;
    }
    let hour = this.kept.get(id);
    const minute = minuteOf(now());
    if (!hour || hour.pod && hour.pod !== session.pod) {
      const none = () => new Array(MINUTES).fill(null);
      hour = { last: minute, use: none(), queue: none() };
      this.kept.set(id, hour);
    }
    hour.pod = session.pod;
    for (; hour.last < minute; hour.last += 1) {
      hour.use = [...hour.use.slice(1), session.utilization_percent];
      hour.queue = [...hour.queue.slice(1), session.queue];
    }
    if (session.utilization_percent !== null) hour.use[MINUTES - 1] = session.utilization_percent;
    if (session.queue !== null) hour.queue[MINUTES - 1] = session.queue;
  }

  of(id) {
    return this.kept.get(id) ?? null;
  }

  forget(id) {
    this.kept.delete(id);
  }
}
