"""The kept front end in a real browser: each module is evaluated once, however it is named, and none is stale."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from playwright.async_api import Page

from tests.e2e.browser import Watch, chromium
from tests.e2e.conftest import StartGateway
from tests.programs import require_program

EVALUATED: Final = "(window.seen ??= []).push('{name}');\n"
MODULES: Final = {
    "/assets/lib/vue.mjs": "export const vue = 1;",
    "/scripts/app.js": "import 'vue'; export const app = {};",
    "/assets/index.js": """
      import "vue"; import {app} from "../scripts/app.js"; import "./chunk.js";
      const listed = await (await fetch("/api/extensions")).json();
      await Promise.all(listed.map(path => import(path)));
      window.done = true;""",
    "/assets/chunk.js": "import '/scripts/app.js';",
    "/extensions/core/shim.js": "import '../../scripts/app.js';",
    "/extensions/mine/a.js": """
      import {app} from "../../scripts/app.js"; import "/extensions/mine/helper.mjs";
      import "../../my_node/x.js"; import "../other/c.js";""",
    "/extensions/mine/deep/b.js": """
      import "../../../scripts/app.js"; import "../helper.mjs"; import "/extensions/mine/a.js"; import "vue";""",
    "/extensions/mine/helper.mjs": "import '/scripts/app.js';",
    "/extensions/other/c.js": "import '/my_node/x.js'; import './d.js'; window.where = import.meta.url;",
    "/extensions/other/d.js": "import '../../scripts/app.js'; import '../mine/helper.mjs';",
    "/my_node/x.js": "import '../scripts/app.js';",
}
LISTED: Final = [path for path in MODULES if path.startswith("/extensions/") and path.endswith(".js")]
PAGE: Final = """<!doctype html><html><head><link rel="icon" href="data:,">
<script type="importmap">{"imports": {"vue": "./assets/lib/vue.mjs"}}</script>
<script type="module" crossorigin src="./assets/index.js"></script></head><body></body></html>"""


class Server:
    """Files of a folder as ComfyUI tells them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self._changes = 0
        self.write("/index.html", PAGE)
        for path, text in MODULES.items():
            self.write(path, EVALUATED.format(name=path) + text)

    def write(self, path: str, text: str) -> None:
        """Each change gets a time of its own."""
        file = self.folder / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self._changes += 1
        os.utime(file, (1_700_000_000 + self._changes,) * 2)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        if request.path in {"/extensions", "/api/extensions"}:
            return web.json_response(LISTED)
        file = self.folder / (request.path[1:] or "index.html")
        if not file.is_file():
            return web.json_response({})
        kind = "text/html" if file.suffix == ".html" else "text/javascript"
        return web.FileResponse(file, headers={"Content-Type": kind, "Cache-Control": "no-cache"})


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def evaluated(page: Page) -> Counter[str]:
    """How often each module has run in this page."""
    await page.wait_for_function("window.done", timeout=30_000)
    seen: list[str] = await page.evaluate("window.seen")
    return Counter(seen)


@pytest.mark.long
@pytest.mark.chromium
async def test_every_module_runs_once_is_not_asked_for_again_and_never_stale(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    server = Server(tmp_path / "web")
    once: Any = dict.fromkeys(MODULES, 1)
    async with (
        serving(server) as url,
        start_gateway(DUTY_POD_URL=url) as gateway,
        chromium(require_program("chromium")) as browser,
    ):
        page = await browser.new_page()
        watch = Watch(page)
        await page.goto(f"{gateway.url}/?user_id=alice")
        assert await evaluated(page) == once
        assert str(await page.evaluate("window.where")).startswith(f"{gateway.url}/extensions/other/c.js")

        server.asked.clear()
        await page.reload()
        assert await evaluated(page) == once
        covered = {
            path for path in MODULES if path.startswith(("/assets/", "/scripts/", "/extensions/core/"))
        }
        assert covered.isdisjoint(server.asked)

        await asyncio.sleep(
            2.1
        )  # the grace within which one look at the server serves for several page loads
        changed = "/extensions/mine/deep/b.js"
        server.write(changed, EVALUATED.format(name="changed") + MODULES[changed])
        await page.reload()
        told = await evaluated(page)
        assert (told["changed"], told[changed]) == (1, 0)
        assert set((told - Counter({"changed": 1})).values()) == {1}

        await asyncio.sleep(2.1)
        server.write("/scripts/app.js", EVALUATED.format(name="new app") + MODULES["/scripts/app.js"])
        server.write("/index.html", PAGE.replace("<body>", "<body>new"))
        await page.reload()
        told = await evaluated(page)
        assert (told["new app"], told["/scripts/app.js"]) == (1, 0)
        assert not watch.errors, watch.errors
        assert not watch.failures, watch.failures
