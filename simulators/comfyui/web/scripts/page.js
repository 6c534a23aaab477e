// Absolute and relative addresses must name the same module, or there are two apis: resolve through the page's path.
import { api } from "./api.js";
import { remaining } from "../assets/lib/words.mjs";

const shown = (id) => document.getElementById(id);

async function queue(slow) {
  const prompt = {
    1: { class_type: "EmptyImage", inputs: { width: 256, height: 256, batch_size: 1, color: Math.floor(Math.random() * 0xffffff) } },
    3: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "ComfyUI" } },
  };
  if (slow) {
    prompt[2] = { class_type: "SimSleep", inputs: { image: ["1", 0], seconds: 5, steps: 10 } };
    prompt[3].inputs.images = ["2", 0];
  }
  const body = JSON.stringify({ prompt, client_id: api.clientId });
  const answer = await api.fetchApi("/prompt", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) shown("now").textContent = `refused: ${answer.status}`;
}

shown("queue").onclick = () => queue(false);
shown("slow").onclick = () => queue(true);
api.addEventListener("status", ({ detail }) => {
  shown("status").textContent = remaining(detail.status.exec_info.queue_remaining);
});
api.addEventListener("progress", ({ detail }) => { shown("now").textContent = `${detail.value} of ${detail.max}`; });
api.addEventListener("b_preview", ({ detail }) => {
  URL.revokeObjectURL(shown("preview").src);
  shown("preview").src = URL.createObjectURL(detail);
});
api.addEventListener("executed", ({ detail }) => {
  for (const image of detail.output?.images ?? []) {
    const picture = new Image();
    picture.src = api.apiURL(`/view?${new URLSearchParams({ ...image, prompt_id: detail.prompt_id })}`);
    picture.title = image.filename;
    shown("results").prepend(picture);
  }
});
api.addEventListener("reconnecting", () => { shown("status").textContent = "reconnecting"; });
api.connect();
for (const path of await (await api.fetchApi("/extensions")).json()) await import(api.fileURL(path));
