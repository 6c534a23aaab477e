// ComfyUI's api as far as extensions use it: requests below the page's own path, and the socket's messages as events.
const base = location.pathname.split("/").slice(0, -1).join("/");

class Api extends EventTarget {
  clientId = sessionStorage.getItem("clientId") ?? "";

  fileURL(path) { return base + path; }
  apiURL(path) { return `${base}/api${path}`; }
  fetchApi(path, options) { return fetch(this.apiURL(path), options); }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const query = this.clientId ? `?clientId=${this.clientId}` : "";
    const socket = new WebSocket(`${scheme}://${location.host}${base}/ws${query}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ type: "feature_flags", data: {} }));
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = () => {
      this.dispatchEvent(new CustomEvent("reconnecting"));
      setTimeout(() => this.connect(), 300);
    };
  }

  receive(data) {
    if (data instanceof ArrayBuffer) {
      if (new DataView(data).getUint32(0) === 1) {
        this.dispatchEvent(new CustomEvent("b_preview", { detail: new Blob([data.slice(8)], { type: "image/jpeg" }) }));
      }
      return;
    }
    const message = JSON.parse(data);
    if (message.data?.sid) {
      this.clientId = message.data.sid;
      sessionStorage.setItem("clientId", this.clientId);
    }
    this.dispatchEvent(new CustomEvent(message.type, { detail: message.data }));
  }
}

export const api = new Api();
