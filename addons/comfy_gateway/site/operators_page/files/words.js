// Numbers and times in words. The gateway's clock counts: an operator's own may be wrong.
const skewMs = Date.parse(document.body.dataset.now) - Date.now();

export function now() {
  return Date.now() + skewMs;
}

export function dollars(usd) {
  if (usd === null || usd === undefined) return "–";
  return `$${usd.toFixed(2)}`;
}

export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} days`;
}

export function since(at) {
  return at ? (now() - Date.parse(at)) / 1000 : null;
}

export function clock(at) {
  return at ? at.replace("T", " ").slice(5, 19) : "–";
}

export function costSoFar(session) {
  const seconds = since(session.ordered_at);
  if (seconds === null || session.cost_per_hour_usd === null || !session.pod) return null;
  return (Math.max(0, seconds) / 3600) * session.cost_per_hour_usd;
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value)} %`;
}

export function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}
