// Follows sessions and shared servers: by the event stream, and by asking again and again while there is none.
import { ask, open } from "./api.js";

const SILENCE_MS = 60_000; // The stream says something every 20 seconds.
const POLL_MS = 5_000;
const POLL_MS_PER_BYTE = 1; // A large answer is asked for less often: 3.6 MB an hour, however many sessions there are.
const RETRY_MS = [500, 2_000, 5_000, 10_000, 30_000];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class News {
  // heard(name, list) with "first" or "changes", as docs/api.md has them; standing(kind, words) with
  // kind live, polling, lost or refused.
  constructor({ heard, standing }) {
    this.heard = heard;
    this.standing = standing;
    this.isStreaming = false;
  }

  async follow() {
    let failures = 0;
    for (;;) {
      try {
        await this.listen(() => { failures = 0; });
        // Its time was over, as the API says: it is opened again at once, and nobody need know.
      } catch (error) {
        if (error.status === 401 || error.status === 403) {
          this.isStreaming = true; // nothing is asked for any more
          this.standing("refused", "You are no longer signed in as an operator. Reload the page.");
          return;
        }
        failures += 1;
      }
      this.isStreaming = false;
      if (failures > 0 && !this.polling) this.polling = this.poll();
      await pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
    }
  }

  async listen(isOpen) {
    const cut = new AbortController();
    let silence;
    const heardSomething = () => {
      clearTimeout(silence);
      silence = setTimeout(() => cut.abort(), SILENCE_MS);
    };
    heardSomething();
    try {
      const answer = await open("/stream", { signal: cut.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        heardSomething();
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.event(part, isOpen);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  event(text, isOpen) {
    const found = /^event: (\w+)\ndata: (.*)$/s.exec(text);
    if (!found) return;
    if (found[1] === "first") {
      this.isStreaming = true;
      isOpen();
      this.standing("live", "Live");
    }
    this.heard(found[1], JSON.parse(found[2]));
  }

  async poll() {
    while (!this.isStreaming) {
      const began = performance.now();
      let wait = POLL_MS;
      try {
        const [{ sessions }, { servers }] = await Promise.all([ask("/sessions"), ask("/duty")]);
        if (this.isStreaming) break;
        const things = [
          ...sessions.map((one) => ({ ...one, id: `session/${one.id}` })),
          ...servers.map((one) => ({ ...one, id: `duty/${one.id}` })),
        ];
        wait = Math.max(POLL_MS, JSON.stringify(things).length * POLL_MS_PER_BYTE);
        this.heard("first", things);
        this.standing("polling", `Event stream cut; asking every ${Math.round(wait / 1000)} s`);
      } catch (error) {
        if (!this.isStreaming) this.standing("lost", `${error.message} Trying again; what you see is old.`);
      }
      await pause(Math.max(500, wait - (performance.now() - began)));
    }
    this.polling = null;
  }
}
