"""``/userdata``, ``/settings`` and ``/users`` where everybody has a home of their own."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from comfy_gateway.core import site_contract
from comfy_gateway.core.files.homes import Home
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.site.app import build_app
from comfy_gateway.site.homes import Homes
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.servers import Servers
from simulators.comfyui import ComfySimulator, serve
from tests.site.site_stand import ALICE, KEY, KEYS, PEER

BOB = UserId(IdKind.NAMED, "bob")
MOST_BYTES = 1_000_000


@dataclass
class Site:
    http: aiohttp.ClientSession
    url: str
    simulator: ComfySimulator

    async def ask(
        self, method: str, path: str, body: Any = None, user: UserId | None = ALICE, **headers: str
    ) -> tuple[int, Any]:
        """Status, and the JSON or the bytes of the answer."""
        sent = headers | {site_contract.KEY: KEY, site_contract.PEER: PEER}
        if user is not None:
            sent[site_contract.USER] = user.key
        is_raw = body is None or isinstance(body, bytes | io.BytesIO)
        data = body if is_raw else json.dumps(body).encode()
        url = URL(self.url + site_contract.HOME_PATH + path, encoded=True)
        async with self.http.request(method, url, data=data, headers=sent) as answer:
            raw = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(raw) if is_json and raw else raw

    def home(self, user: UserId | None = ALICE) -> Path:
        return self.simulator.folders.user / "default" / Home.of(KEYS, user).folder


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        simulator = ComfySimulator("duty")
        running = await stack.enter_async_context(serve(simulator))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        home = Backend("duty-0", Source.DUTY, Upstream.parse(running.url))
        homes = Homes(
            keys=KEYS,
            home_server=lambda: home,
            servers=Servers(http),
            http=http,
            silence_s=5,
            most_bytes=MOST_BYTES,
        )
        server = SiteServer(build_app(key=KEY, parts=[homes]))
        address = await server.start()
        stack.push_async_callback(server.aclose)
        yield Site(http, address.url(""), simulator)


async def test_a_workflow_is_saved_listed_moved_read_and_removed_in_ones_own_home(site: Site) -> None:
    assert await site.ask("GET", "/v2/userdata") == (200, [])
    assert (await site.ask("GET", "/userdata?dir=workflows"))[0] == 404
    assert await site.ask("POST", "/userdata/workflows%2Fa%20b.json", {"x": 1}) == (200, "workflows/a b.json")
    assert (site.home() / "workflows/a b.json").read_bytes() == b'{"x": 1}'
    assert (await site.ask("POST", "/userdata/workflows%2Fa%20b.json?overwrite=false", {}))[0] == 409
    status, info = await site.ask("POST", "/userdata/workflows%2F50%25.json?full_info=true", {})
    assert (status, info["path"]) == (200, "workflows/50%.json")
    status, listed = await site.ask("GET", "/userdata?dir=workflows&recurse=true")
    assert (status, sorted(listed)) == (200, ["50%.json", "a b.json"])
    status, tree = await site.ask("GET", "/v2/userdata?path=workflows")
    assert {one["path"] for one in tree} == {"workflows/50%.json", "workflows/a b.json"}
    assert {one["path"] for one in (await site.ask("GET", "/v2/userdata"))[1]} > {"workflows"}
    moved = await site.ask("POST", "/userdata/workflows%2Fa%20b.json/move/workflows%2Fc.json")
    assert moved == (200, "workflows/c.json")
    assert await site.ask("GET", "/userdata/workflows%2Fc.json") == (200, {"x": 1})
    assert (await site.ask("DELETE", "/userdata/workflows%2Fc.json"))[0] == 204
    assert (await site.ask("GET", "/userdata/workflows%2Fc.json"))[0] == 404


async def test_nothing_of_anothers_home_is_listed_read_overwritten_moved_or_removed(site: Site) -> None:
    await site.ask("POST", "/userdata/workflows%2Fa.json", {"secret": 1})
    folder = Home.of(KEYS, ALICE).folder.replace("/", "%2F")
    for name in (
        "workflows%2Fa.json",
        f"{folder}%2Fworkflows%2Fa.json",
        f"..%2F{folder.rpartition('%2F')[2]}%2Fworkflows%2Fa.json",
        f"%252e%252e%252F%252e%252e%252F{folder}%2Fworkflows%2Fa.json",
        f"x%2F..%2F..%2F..%2F{folder}%2Fworkflows%2Fa.json",
    ):
        for method, path in (
            ("GET", f"/userdata/{name}"),
            ("DELETE", f"/userdata/{name}"),
            ("POST", f"/userdata/{name}/move/mine.json"),
            ("GET", f"/userdata?dir={name}"),
            ("GET", f"/v2/userdata?path={name}"),
        ):
            assert (await site.ask(method, path, user=BOB))[0] in {403, 404}, (method, path)
        await site.ask("POST", f"/userdata/{name}", {"bobs": 1}, user=BOB)
        await site.ask("POST", f"/userdata/mine.json/move/{name}", user=BOB)
    assert await site.ask("GET", "/userdata/workflows%2Fa.json") == (200, {"secret": 1})
    assert (await site.ask("GET", "/userdata/."))[0] == 403
    assert [path.name for path in (site.simulator.folders.user / "default").iterdir()] == [".gateway-homes"]


async def test_settings_are_each_ones_own_and_two_changes_at_once_both_count(site: Site) -> None:
    assert await site.ask("GET", "/settings") == (200, {})
    await asyncio.gather(*(site.ask("POST", f"/settings/x.{n}", n) for n in range(8)))
    assert (await site.ask("POST", "/settings", {"Comfy.Locale": "de", "x.0": [1]}))[0] == 200
    expected = {"Comfy.Locale": "de", "x.0": [1], **{f"x.{n}": n for n in range(1, 8)}}
    assert await site.ask("GET", "/settings") == (200, expected)
    assert await site.ask("GET", "/settings/x.3") == (200, 3)
    assert await site.ask("GET", "/settings/none") == (200, None)
    assert (
        await site.ask("GET", "/settings", user=BOB)
        == await site.ask("GET", "/settings", user=None)
        == (200, {})
    )


@pytest.mark.parametrize(("path", "body"), [("/settings", b"[1]"), ("/settings", b"{"), ("/settings/x", b"")])
async def test_settings_that_cannot_be_read_are_refused(site: Site, path: str, body: bytes) -> None:
    status, told = await site.ask("POST", path, body)
    assert (status, told["error"]["type"]) == (400, "bad_request")


async def test_broken_settings_begin_anew_and_a_silent_server_changes_nothing(site: Site) -> None:
    await site.ask("POST", "/userdata/comfy.settings.json", b"{broken")
    assert await site.ask("GET", "/settings") == (200, {})
    site.simulator.mood.dead = True
    for method, path, body in (
        ("GET", "/settings", None),
        ("POST", "/settings/x", 1),
        ("GET", "/userdata/a.json", None),
        ("POST", "/userdata/a.json", 1),
        ("GET", "/v2/userdata", None),
    ):
        assert (await site.ask(method, path, body))[0] in {502, 503}


async def test_too_much_is_refused(site: Site) -> None:
    too_much = io.BytesIO(b"x" * (MOST_BYTES + 1))
    assert (await site.ask("POST", "/userdata/a.bin", too_much))[0] == 413
    assert not (site.home() / "a.bin").exists()
    assert (await site.ask("POST", "/settings/x", io.BytesIO(b'"' + b"x" * 1_000_000 + b'"')))[0] == 413
    assert (await site.ask("POST", "/settings/x", "x" * 600_000))[0] == 200
    assert (await site.ask("POST", "/settings/y", "x" * 600_000))[0] == 413
    assert len((await site.ask("GET", "/settings"))[1]) == 1


async def test_a_file_is_told_by_its_headers_alone_and_in_parts(site: Site) -> None:
    await site.ask("POST", "/userdata/user.css", b"0123456789")
    assert await site.ask("HEAD", "/userdata/user.css") == (200, b"")
    assert await site.ask("GET", "/userdata/user.css", Range="bytes=2-4") == (206, b"234")


async def test_users_are_the_gateways(site: Site) -> None:
    assert await site.ask("GET", "/users") == (200, {"storage": "server", "migrated": True})
    assert (await site.ask("POST", "/users", {"username": "x"}))[0] == 403
