// Questions and orders to the gateway's API; what it refuses is thrown in its own words.
export const API = "/gateway/api/v1";
const PATIENCE_MS = 20_000;

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function refusal(answer) {
  const said = await answer.json().catch(() => null);
  const { message, details } = said?.error ?? {};
  const words = [message, details].filter(Boolean).join(" ");
  return new Refused(words || `The gateway answered ${answer.status}.`, answer.status);
}

export async function open(path, options = {}) {
  let answer;
  try {
    answer = await fetch(API + path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The gateway cannot be reached.", 0);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export async function ask(path) {
  const answer = await open(path, { signal: AbortSignal.timeout(PATIENCE_MS) }).catch(tooLate);
  return answer.json();
}

export async function order(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const sent = { method: "POST", headers, body: JSON.stringify(body), signal };
  const answer = await open(path, sent).catch(tooLate);
  return answer.json();
}

function tooLate(error) {
  if (error instanceof Refused) throw error;
  throw new Refused("The gateway did not answer in time.", 0);
}
