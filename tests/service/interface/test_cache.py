"""The front end as the gateway keeps it, of a real server whose files change."""

import asyncio
import gzip
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import brotli
import pytest
from aiohttp import web

from comfy_gateway.adapters.interface_source import HomeInterface
from comfy_gateway.core.interface.files import ASK_AGAIN, IMMUTABLE
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.interface.cache import FRESH_S, SWEEP_S, Asked, InterfaceCache, Served
from comfy_gateway.service.interface.store import InterfaceStore, Kept
from comfy_gateway.service.tasks import Tasks
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock

APP = "/scripts/app.js"
OWN = "/extensions/mine/mine.js"
HELPER = "/extensions/mine/helper.mjs"
PAGE = '<head><script type="module" src="./assets/index.js"></script></head>'


FILES = {"/index.html": PAGE, "/assets/index.js": "1;", APP: "1;" * 1000, OWN: "1;", HELPER: "1;"}


class Stand:
    """A server that tells files of a folder as ComfyUI does, and the cache before it."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder, self.clock = folder, clock
        self.asked: Counter[str] = Counter()
        self.is_up, self.sets_cookie = True, False
        self.listed: list[str] = [OWN]
        self.on_fetch = asyncio.Event()
        self.on_fetch.set()
        self.tasks = Tasks("test")
        self.times = 0
        for path, text in {
            "/index.html": PAGE,
            "/assets/index.js": "1;",
            APP: "1;" * 1000,
            OWN: "1;",
            HELPER: "1;",
        }.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Each change has a time of its own, however fast the test is."""
        file = self.folder / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.times += 1
        os.utime(file, (1_700_000_000 + self.times, 1_700_000_000 + self.times))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        assert "Cookie" not in request.headers
        if not self.is_up:
            request.transport.abort() if request.transport else None
            raise ConnectionResetError
        if request.path == "/extensions":
            return web.json_response(self.listed)
        if request.path.startswith("/scripts"):
            await self.on_fetch.wait()
        file = self.folder / (request.path[1:] or "index.html")
        if not file.is_file():
            return web.Response(status=404)
        headers = {"Set-Cookie": "a=b"} if self.sets_cookie else {}
        return web.FileResponse(file, headers=headers)

    async def get(self, path: str, accept: str = "", known: str = "") -> Served:
        served = await self.cache.serve(Asked(path, accept, known))
        assert served is not None
        return served

    async def tag(self) -> str:
        """The version that a page names which is loaded now."""
        page = (await self.get("/")).body.decode()
        return page.partition("/gateway/files/")[2][:16]

    async def load_later(self) -> str:
        await self.clock.advance(FRESH_S + 0.1)
        return await self.tag()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.http = aiohttp.ClientSession()
        home = Backend("duty", Source.DUTY, Upstream("http", "127.0.0.1", self.runner.addresses[0][1]))
        self.source = HomeInterface(self.http, lambda: home)
        self.store = InterfaceStore(1024 * 1024)
        self.cache = InterfaceCache(source=self.source, store=self.store, clock=self.clock, tasks=self.tasks)

    async def aclose(self) -> None:
        await self.tasks.aclose()
        await self.http.close()
        await self.runner.cleanup()


@pytest.fixture
async def stand(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Stand]:
    made = Stand(tmp_path, clock)
    await made.start()
    yield made
    await made.aclose()


async def test_a_module_is_fetched_once_and_kept_by_browsers_for_good(stand: Stand) -> None:
    tag = await stand.tag()
    for _ in range(3):
        served = await stand.get(f"/gateway/files/{tag}{APP}")
        assert (served.status, served.body, served.headers["Cache-Control"]) == (200, b"1;" * 1000, IMMUTABLE)
    assert stand.asked[APP] == 1


async def test_many_who_ask_at_once_cost_the_server_one_question(stand: Stand) -> None:
    tag = await stand.tag()
    stand.on_fetch.clear()
    waiting = [asyncio.create_task(stand.get(f"/gateway/files/{tag}{APP}")) for _ in range(20)]
    await wait_for(lambda: stand.asked[APP] > 0, "the question to the server")
    waiting[0].cancel()  # who asked first goes away
    stand.on_fetch.set()
    told = await asyncio.gather(*waiting[1:])
    assert {served.body for served in told} == {b"1;" * 1000}
    assert stand.asked[APP] == 1


async def test_a_page_load_asks_the_server_for_page_list_and_listed_modules_alone(stand: Stand) -> None:
    tag = await stand.tag()
    for path in (APP, OWN, "/assets/index.js"):
        await stand.get(f"/gateway/files/{tag}{path}")
    stand.asked.clear()
    assert await stand.load_later() == tag
    assert await stand.tag() == tag  # at once after it: nothing
    assert stand.asked == {"/": 1, "/extensions": 1, OWN: 1}


@pytest.mark.parametrize(
    ("path", "text"),
    [("/index.html", PAGE + "<p>"), (OWN, "2;"), (OWN, "import.meta;")],
    ids=["the front end", "a module", "a module that minds its address"],
)
async def test_the_next_page_after_a_change_has_another_version(stand: Stand, path: str, text: str) -> None:
    tag = await stand.tag()
    await stand.get(f"/gateway/files/{tag}{OWN}")
    stand.write(path, text)
    later = await stand.load_later()
    assert later != tag
    if path == OWN:
        assert (await stand.get(f"/gateway/files/{later}{OWN}")).body == text.encode()


async def test_an_extension_that_comes_or_goes_is_another_version(stand: Stand) -> None:
    stand.write("/extensions/other/a.js", "1;")
    tags = [await stand.tag()]
    for listed in ([], [OWN, "/extensions/other/a.js"]):
        stand.listed = listed
        tags.append(await stand.load_later())
    assert len(set(tags)) == 3


async def test_a_file_that_comes_after_an_update_gets_no_lasting_place_in_the_page_before_it(
    stand: Stand,
) -> None:
    tag = await stand.tag()
    stand.write("/index.html", PAGE + "<p>")
    stand.write(APP, "2;")
    served = await stand.get(f"/gateway/files/{tag}{APP}")
    assert (served.body, served.headers["Cache-Control"]) == (b"2;", ASK_AGAIN)
    later = await stand.load_later()
    served = await stand.get(f"/gateway/files/{later}{APP}")
    assert (served.body, served.headers["Cache-Control"]) == (b"2;", IMMUTABLE)
    assert (await stand.get(f"/gateway/files/{tag}{APP}")).headers["Cache-Control"] == ASK_AGAIN


async def test_what_no_version_covers_is_asked_for_again_but_not_sent_again(stand: Stand) -> None:
    tag = await stand.tag()
    address = f"/gateway/files/{tag}{HELPER}"
    first = await stand.get(address)
    assert first.headers["Cache-Control"] == ASK_AGAIN
    await stand.clock.advance(FRESH_S + 0.1)
    assert (await stand.get(address, known=first.headers["ETag"])).status == 304
    assert stand.asked[HELPER] == 2
    stand.write(HELPER, "2;")
    await stand.clock.advance(FRESH_S + 0.1)
    assert (await stand.get(address, known=first.headers["ETag"])).body == b"2;"


async def test_an_unversioned_address_is_told_as_it_is_now(stand: Stand) -> None:
    assert (await stand.get(APP)).headers["Cache-Control"] == ASK_AGAIN
    stand.write("/index.html", PAGE + "<p>")
    stand.write(APP, "2;")
    await stand.clock.advance(FRESH_S + 0.1)
    assert (await stand.get(APP)).body == b"2;"


async def test_files_that_change_behind_an_unchanged_page_are_found_in_time(stand: Stand) -> None:
    tag = await stand.tag()
    await stand.get(f"/gateway/files/{tag}{APP}")
    stand.write(APP, "2;")
    assert await stand.load_later() == tag
    await stand.clock.advance(SWEEP_S)
    await stand.tag()
    await wait_for(lambda: stand.asked[APP] == 2, "the comparison")
    await wait_for(lambda: (kept := stand.store.get(APP)) is not None and kept.body == b"2;", "the file")
    later = await stand.load_later()
    assert later != tag
    assert (await stand.get(f"/gateway/files/{later}{APP}")).body == b"2;"


async def test_each_client_gets_the_coding_that_it_takes_and_each_is_made_once(stand: Stand) -> None:
    plain = (await stand.get(APP)).body
    by_brotli, by_gzip = await stand.get(APP, "br, gzip"), await stand.get(APP, "gzip")
    assert (brotli.decompress(by_brotli.body), gzip.decompress(by_gzip.body)) == (plain, plain)
    assert len({served.headers["ETag"] for served in (by_brotli, by_gzip, await stand.get(APP))}) == 3
    assert (await stand.get(APP, "br")).body is by_brotli.body
    assert (await stand.get(APP, "gzip", by_brotli.headers["ETag"])).status == 304


async def test_an_answer_with_a_cookie_or_none_at_all_is_the_servers_own(stand: Stand) -> None:
    assert await stand.cache.serve(Asked("/api/userdata/user.css")) is None
    assert await stand.cache.serve(Asked("/scripts/none.js")) is None
    stand.sets_cookie = True
    assert await stand.cache.serve(Asked("/fonts/inter.woff2")) is None
    await stand.clock.advance(FRESH_S + 0.1)
    assert await stand.cache.serve(Asked("/")) is None


async def test_while_the_server_is_down_versioned_files_are_told_and_a_page_is_not(stand: Stand) -> None:
    tag = await stand.tag()
    await stand.get(f"/gateway/files/{tag}{APP}")
    stand.is_up = False
    await stand.clock.advance(FRESH_S + 0.1)
    assert (await stand.get(f"/gateway/files/{tag}{APP}")).status == 200
    assert await stand.cache.serve(Asked("/")) is None
    stand.is_up = True
    assert await stand.tag() == tag


async def test_a_page_of_another_make_is_shown_as_it_is(stand: Stand) -> None:
    text = PAGE + '<base href="/">'
    stand.write("/index.html", text)
    assert (await stand.get("/")).body.decode() == text


async def test_memory_is_bounded_and_what_was_used_last_stays(stand: Stand) -> None:
    store = InterfaceStore(250)
    told = await stand.source.fetch(APP, {})
    files = [Kept.of(name, replace(told, body=b"x" * 100), 0.0) for name in "abc"]
    store.put(files[0])
    store.put(files[1])
    assert store.get("a") is files[0]
    store.put(files[2])
    assert [kept.path for kept in store.all()] == ["a", "c"]
    store.put(Kept.of("large", replace(told, body=b"x" * 300), 0.0))
    assert store.all() == []


async def test_a_listing_that_cannot_be_read_leaves_extensions_where_they_are(stand: Stand) -> None:
    stand.listed = "x"  # type: ignore[assignment]
    page = (await stand.get("/")).body.decode()
    assert "extensions/core/" in page
    assert "extensions/mine/" not in page
