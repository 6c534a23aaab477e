"""ComfyUI's own front end as a person uses it: draw a workflow, press Run, look at the picture."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from playwright.async_api import Page, Response, expect

from tests.e2e.browser import Watch

SLOW_MS: Final = 60_000
"""For a page load with an empty cache on a busy machine."""

# What the page itself hears of its prompts, kept for us.
LISTEN: Final = """() => {
  window.heard = {endings: {}, files: {}, starts: []};
  const note = kind => ({detail}) => { window.heard.endings[detail.prompt_id] = kind; };
  for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
    window.app.api.addEventListener(kind, note(kind));
  window.app.api.addEventListener("execution_start", ({detail}) => window.heard.starts.push(detail.prompt_id));
  window.app.api.addEventListener("executed", ({detail}) => {
    window.heard.files[detail.prompt_id] = detail.output?.images ?? [];
  });
}"""


def empty_to_save(colour: int, *, prefix: str, width: int = 200, height: int = 120) -> dict[str, Any]:
    """EmptyImage -> SaveImage, in API format."""
    size = {"width": width, "height": height, "batch_size": 1}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**size, "color": colour}, "_meta": {"title": "Empty"}},
        "9": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": prefix},
            "_meta": {"title": "Save"},
        },
    }


def load_to_save(image: str, *, prefix: str) -> dict[str, Any]:
    """LoadImage -> SaveImage, in API format."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}, "_meta": {"title": "Load"}},
        "9": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": prefix},
            "_meta": {"title": "Save"},
        },
    }


@dataclass
class Run:
    """One press of Run that the server took."""

    prompt_id: str
    headers: dict[str, str]
    client_id: str


@dataclass
class FrontEnd:
    """The page of one tab."""

    page: Page
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.page)

    async def open(self, url: str) -> None:
        """Load it and wait until it has stopped to ask for things."""
        await self.page.goto(url, timeout=SLOW_MS)
        await self.is_usable()

    async def reload(self) -> None:
        """As by F5."""
        await self.page.reload(timeout=SLOW_MS)
        await self.is_usable()

    async def is_usable(self) -> None:
        """Wait until a workflow is open, the socket's handshake is done, the network is quiet and no dialog is up."""
        await self.page.wait_for_function(
            "window.app?.extensionManager?.workflow?.activeWorkflow && window.app.api.clientId",
            timeout=SLOW_MS,
        )
        await self.page.wait_for_load_state("networkidle", timeout=SLOW_MS)
        # The first visitor that a server ever has is shown a choice of templates.
        choice = self.page.get_by_role("dialog")
        if await choice.count():
            await self.page.keyboard.press("Escape")
            await expect(choice).to_have_count(0)
        await self.page.evaluate(LISTEN)

    async def draw(self, nodes: dict[str, Any], name: str = "gateway-e2e") -> None:
        """Open a workflow given in API format in a new workflow tab."""
        await self.page.evaluate("([nodes, name]) => window.app.loadApiJson(nodes, name)", [nodes, name])
        drawn = await self.page.evaluate("window.app.graph.nodes.map(node => node.type)")
        assert sorted(drawn) == sorted(node["class_type"] for node in nodes.values())

    async def set_colour(self, colour: int) -> None:
        """Change the widget of the EmptyImage node: the same workflow again would be answered from the cache."""
        await self.page.evaluate(
            """colour => {
              const node = window.app.graph.nodes.find(node => node.type === "EmptyImage");
              node.widgets.find(widget => widget.name === "color").value = colour;
            }""",
            colour,
        )

    async def press_run(self) -> Run:
        """Press the blue button; returns what the server made of it."""

        def is_prompt(response: Response) -> bool:
            return response.request.method == "POST" and response.url.endswith("/api/prompt")

        async with self.page.expect_response(is_prompt, timeout=SLOW_MS) as waited:
            await self.page.get_by_role("button", name="Run", exact=True).click()
        response = await waited.value
        assert response.status == 200, await response.text()
        sent = json.loads(response.request.post_data or "")
        return Run((await response.json())["prompt_id"], await response.all_headers(), sent["client_id"])

    async def ending(self, run: Run) -> str:
        """What the page's socket said about the end of it; waits for that."""
        ended = await self.page.wait_for_function(
            "prompt_id => window.heard.endings[prompt_id]", arg=run.prompt_id, timeout=SLOW_MS
        )
        return str(await ended.json_value())

    async def starts(self) -> list[str]:
        """Prompts that this page was told have begun."""
        return list(await self.page.evaluate("window.heard.starts"))

    async def picture_below_node(self, run: Run) -> bytes:
        """The bytes of its picture, once that is drawn below the node that saved it."""
        source = await self.page.wait_for_function(
            """names => window.app.graph.nodes.flatMap(node => node.imgs ?? []).find(
              image => image.src.includes("/api/view?") && names.every(name => `${image.src}&`.includes(name))
                && image.naturalWidth > 0
            )?.src""",
            arg=await self._file_names(run),
            timeout=SLOW_MS,
        )
        return await self.fetched(await source.json_value())

    async def picture_in_queue(self, run: Run) -> bytes:
        """The bytes of its picture, once that is seen in the panel of the queue."""
        if not await self.page.locator(".sidebar-content-container").is_visible():
            await self.page.get_by_role("button", name="Queue (q)").click()
        filename, subfolder = await self._file_names(run)
        # The subfolder is the last of the query, or not.
        names = [f'[src*="{filename}"][src*="{subfolder}"]', f'[src*="{filename}"][src$="{subfolder[:-1]}"]']
        image = self.page.locator(
            ", ".join(f'img.task-output-image[src*="/api/view?"]{name}' for name in names)
        )
        await expect(image).to_be_visible(timeout=SLOW_MS)
        await self.page.wait_for_function(
            "image => image.naturalWidth > 0", arg=await image.element_handle(), timeout=SLOW_MS
        )
        return await self.fetched(await image.get_attribute("src") or "")

    async def _file_names(self, run: Run) -> list[str]:
        """The picture as parts of a query. The page has heard of it before it hears that the run has ended.

        Two servers have files of one name; the subfolder tells them apart.
        """
        [file] = await self.page.evaluate("prompt_id => window.heard.files[prompt_id]", run.prompt_id)
        return [urlencode({key: file[key]}) + "&" for key in ("filename", "subfolder")]

    async def fetched(self, path: str) -> bytes:
        """The body of a GET that the page itself makes."""
        text = await self.page.evaluate(
            """async path => {
              const answer = await fetch(path);
              if (!answer.ok) throw new Error(`${answer.status} ${path}`);
              const bytes = new Uint8Array(await answer.arrayBuffer());
              return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
            }""",
            path,
        )
        return base64.b64decode(text)

    async def has_socket(self) -> bool:
        """Whether its socket is open at this moment."""
        return bool(await self.page.evaluate("window.app.api.socket?.readyState === WebSocket.OPEN"))

    async def is_ready(self) -> bool:
        """Whether the gateway tells this page that its user has a pod."""
        ready = await self.page.evaluate(
            """async () => (await fetch("/api/system_stats")).headers.get("X-Comfy-Session-Ready")"""
        )
        return bool(ready == "1")
