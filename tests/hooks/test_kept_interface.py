"""Who answers a file of the front end: the gateway from what it keeps, or the shared server."""

from collections.abc import Mapping
from typing import cast

import pytest

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.interface.files import Told
from comfy_gateway.service.interface.cache import InterfaceCache
from comfy_gateway.service.interface.store import InterfaceStore
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.hooks.stand import Stand, ask

TAG = "0123456789abcdef"
PAGE = b'<head><script type="module" src="./assets/index.js"></script></head>'


class Server:
    """Tells a page, no extensions, and scripts."""

    is_up = True

    async def fetch(self, path: str, known: Mapping[str, str]) -> Told:
        if not self.is_up:
            raise BackendUnavailable("down")
        if path == "/extensions":
            return Told(200, {}, b"[]")
        body = PAGE if path == "/" else b"1;" * 1000
        return Told(200, {"etag": '"1"', "content-type": "text/javascript"}, body)


@pytest.fixture
def server(stand: Stand) -> Server:
    server = Server()
    cache = InterfaceCache(source=server, store=InterfaceStore(10**6), clock=FakeClock(), tasks=Tasks("test"))
    stand.change(interface=cache)
    return server


async def version_of(stand: Stand) -> str:
    flow = await stand.arrive(ask("/"))
    assert flow.response is not None
    return cast(str, flow.response.text).partition("/gateway/files/")[2][:16]


async def test_a_kept_file_is_answered_at_once_with_its_compressed_bytes(
    stand: Stand, server: Server
) -> None:
    tag = await version_of(stand)
    flow = await stand.arrive(
        ask(f"/gateway/files/{tag}/scripts/app.js", headers=[("Accept-Encoding", "br")])
    )
    response = flow.response
    assert response is not None
    assert (response.headers["Content-Encoding"], response.content) == ("br", b"1;" * 1000)
    assert response.headers["Content-Length"] == str(len(response.raw_content or b""))
    assert "immutable" in response.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/scripts/app.js?v=1", []),
        ("GET", "/scripts/app.js", [("Range", "bytes=0-1")]),
        ("HEAD", "/scripts/app.js", []),
        ("GET", "/assets/picture.png", []),
    ],
)
async def test_everything_else_is_the_servers(
    stand: Stand, server: Server, method: str, path: str, headers: list[tuple[str, str]]
) -> None:
    tag = await version_of(stand)
    for prefix in ("", f"/gateway/files/{tag}"):
        flow = await stand.arrive(ask(prefix + path, method=method, headers=headers))
        assert flow.response is None
        assert flow.request.path == stand.routes.home.upstream.prefix + path
        assert stand.where(flow) == stand.routes.home.id


async def test_a_versioned_address_works_when_nothing_is_kept(stand: Stand) -> None:
    flow = await stand.arrive(ask(f"/gateway/files/{TAG}/scripts/app.js"))
    assert flow.request.path.endswith("/scripts/app.js")
    assert "files" not in flow.request.path
    assert stand.where(flow) == stand.routes.home.id


async def test_a_server_that_is_down_is_asked_by_the_client_itself(stand: Stand, server: Server) -> None:
    server.is_up = False
    flow = await stand.arrive(ask("/"))
    assert flow.response is None
    assert stand.where(flow) == stand.routes.home.id


async def test_a_page_still_needs_to_say_who_it_is_for(stand: Stand, server: Server) -> None:
    flow = await stand.arrive(ask("/", user=None))
    assert flow.response is not None
    assert flow.response.status_code == 400


@pytest.mark.parametrize("path", ["/view", "/userdata/x.js", "/gateway/events", "/scripts/../view"])
async def test_a_version_in_front_of_another_path_leads_nowhere(
    stand: Stand, server: Server, path: str
) -> None:
    flow = await stand.arrive(ask(f"/gateway/files/{TAG}{path}?user_id=alice"))
    assert stand.where(flow).partition("?")[0] in {f"site /gateway/files/{TAG}{path}", "400", "403"}
