// The shared servers, in the order in which the gateway tells them.
const list = document.getElementById("duty");
const template = document.getElementById("server-row");

function words({ is_healthy: isHealthy, reason }) {
  if (isHealthy === null) return "not yet looked at";
  return isHealthy ? "answers" : reason || "does not answer";
}

export class Duty {
  constructor() {
    this.known = new Map();
  }

  replace(servers) {
    this.known = new Map();
    list.replaceChildren();
    for (const one of servers) this.change(one);
  }

  change(fields) {
    const server = { ...this.known.get(fields.id), ...fields };
    this.known.set(server.id, server);
    let row = [...list.children].find((one) => one.dataset.id === server.id);
    if (!row) {
      row = list.appendChild(template.content.firstElementChild.cloneNode(true));
      row.dataset.id = server.id;
    }
    row.dataset.health = server.is_healthy === null ? "unknown" : server.is_healthy ? "up" : "down";
    const put = (name, text) => { row.querySelector(`[data-is=${name}]`).textContent = text; };
    put("name", server.id.slice("duty/".length) + (server.is_home ? " · home" : ""));
    put("health", words(server));
    put("queue", server.queue ?? "–");
    put("prompts", server.prompts);
  }

  remove(id) {
    this.known.delete(id);
    [...list.children].find((one) => one.dataset.id === id)?.remove();
  }
}
