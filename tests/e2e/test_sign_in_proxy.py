"""``AUTH_MODE=proxy``: one real gateway, the proxy that it trusts, and people who pretend to be it."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.way_in import NotingComfyUI, ask, client, noting_comfyui

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROXY, STRANGER = "127.0.0.2", "127.0.0.1"
NAMED = {
    "X-Forwarded-User": "alice@example.com",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
}


@dataclass
class World:
    """A gateway behind a proxy."""

    gateway: GatewayProcess
    comfyui: NotingComfyUI

    @property
    def url(self) -> str:
        return self.gateway.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("proxy")
    async with noting_comfyui() as comfyui:
        settings = {
            "AUTH_MODE": "proxy",
            "TRUSTED_PROXIES": f"{PROXY}, 10.0.0.0/8",
            "USER_ID_HEADER": "X-Forwarded-User",
            "AUTH_OPERATORS": "olga@example.com",
            "DUTY_POD_URL": comfyui.url,
        }
        async with running_gateway(settings, state_dir=folder, confdir=confdir) as gateway:
            yield World(gateway, comfyui)


@pytest_asyncio.fixture(loop_scope="module")
async def proxy() -> AsyncIterator[aiohttp.ClientSession]:
    async with client(PROXY) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module")
async def stranger() -> AsyncIterator[aiohttp.ClientSession]:
    async with client(STRANGER) as session:
        yield session


async def test_the_header_of_an_untrusted_peer_names_nobody(
    world: World, stranger: aiohttp.ClientSession
) -> None:
    for path in ("/?stranger", "/queue?stranger&user_id=alice", "/gateway/metrics", "/gateway/signin/x"):
        status, answer, text = await ask(stranger, f"{world.url}{path}", headers=NAMED)
        assert status == 401, path
        assert json.loads(text)["error"]["type"] == "sign_in_required"
        assert "WWW-Authenticate" not in answer.headers
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stranger.ws_connect(f"{world.url}/ws?clientId=stranger", headers=NAMED)
    assert refused.value.status == 401
    status, _, _ = await ask(stranger, f"{world.url}/prompt?stranger", method="POST", json={}, headers=NAMED)
    assert status == 401
    assert world.comfyui.of("stranger") == []
    assert (await ask(stranger, f"{world.url}/gateway/healthz"))[0] == 200


async def test_the_proxy_names_the_user_and_says_where_the_caller_is(
    world: World, proxy: aiohttp.ClientSession
) -> None:
    more = {
        "Authorization": "Bearer SECRET",
        "X-Forwarded-Access-Token": "SECRET",
        "X-Auth-Request-Email": "alice@example.com",
        "Cookie": "comfy_gateway_user=x; comfy_gateway_session=SECRET; theirs=1",
        "X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.0.0.9",
        "X-Forwarded-Host": "localhost:1234",
        "X-Forwarded-Port": "443",
    }
    status, answer, _ = await ask(
        proxy, f"{world.url}/api/named?user_id=bob&clientId=x", headers=NAMED | more
    )
    assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "alice@example.com")
    (heard,) = world.comfyui.of("named")
    assert heard.path == "/api/named?clientId=x"
    assert heard.headers["X-Forwarded-For"] == "203.0.113.7"
    assert heard.headers["X-Forwarded-Proto"] == "https"
    assert heard.headers["X-Forwarded-Host"] == "localhost:1234"
    assert heard.headers["Cookie"] == "theirs=1"
    assert "SECRET" not in repr(heard)
    assert "alice" not in repr(heard)
    async with proxy.ws_connect(f"{world.url}/ws?clientId=a", headers=NAMED) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
    prompt = {"prompt": {}, "client_id": "bob"}
    status, answer, _ = await ask(proxy, f"{world.url}/prompt", method="POST", json=prompt, headers=NAMED)
    assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "alice@example.com")


@pytest.mark.parametrize(
    ("names", "status"),
    [([], 401), ([""], 401), (["alice", "bob"], 400), (["x" * 129], 400), ([" alice "], 200)],
)
async def test_the_proxy_has_to_name_exactly_one(
    world: World, proxy: aiohttp.ClientSession, names: list[str], status: int
) -> None:
    headers = [("X-Forwarded-User", name) for name in names]
    found, _, _ = await ask(proxy, f"{world.url}/queue", headers=headers)
    assert found == status


async def test_no_cookie_stands_for_the_proxys_word(world: World, proxy: aiohttp.ClientSession) -> None:
    status, answer, _ = await ask(proxy, f"{world.url}/", headers=NAMED | {"Accept": "text/html"})
    assert status == 200
    assert "Set-Cookie" not in answer.headers


async def test_operators_are_named_by_the_settings(world: World, proxy: aiohttp.ClientSession) -> None:
    assert (await ask(proxy, f"{world.url}/gateway/metrics", headers=NAMED))[0] == 403
    olga = NAMED | {"X-Forwarded-User": "olga@example.com"}
    assert (await ask(proxy, f"{world.url}/gateway/metrics", headers=olga))[0] == 200


async def test_a_page_of_another_site_changes_nothing_through_the_proxy(
    world: World, proxy: aiohttp.ClientSession
) -> None:
    for foreign in ({"Origin": "https://evil.example"}, {"X-Forwarded-Host": "evil.example"}):
        status, _, _ = await ask(
            proxy, f"{world.url}/interrupt?foreign", method="POST", json={}, headers=NAMED | foreign
        )
        assert status == 403
    assert world.comfyui.of("foreign") == []
