"""``AUTH_MODE=basic`` with an htpasswd file: one real gateway, real clients."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import bcrypt
import pytest
import pytest_asyncio

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.session_cookie import PLAIN_NAME, SessionCookies
from tests.conditions import wait_for
from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.way_in import NotingComfyUI, ask, client, flows_hold, noting_comfyui

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_FAILURES = 3
MASTER = "m" * 40
PASSWORDS = {name: f"SECRET of {name}: ä" for name in ("alice", "bob", "carol", "olga")}
PAGE = {"Accept": "text/html"}


def basic(name: str, password: str | None = None) -> dict[str, str]:
    pair = f"{name}:{PASSWORDS[name] if password is None else password}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


@dataclass
class World:
    """A gateway that asks for passwords."""

    gateway: GatewayProcess
    comfyui: NotingComfyUI
    htpasswd: Path
    flows: Path

    @property
    def url(self) -> str:
        return self.gateway.url

    def write(self, **passwords: str) -> None:
        lines = [
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"
            for name, password in passwords.items()
        ]
        self.htpasswd.write_text("\n".join([*lines, ""]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("basic")
    htpasswd, flows = folder / "htpasswd", folder / "flows"
    async with noting_comfyui() as comfyui:
        settings = {
            "AUTH_MODE": "basic",
            "AUTH_BASIC": f"@{htpasswd}",
            "AUTH_OPERATORS": "olga",
            "AUTH_MAX_FAILURES": str(MAX_FAILURES),
            "DUTY_POD_URL": comfyui.url,
            "GATEWAY_SECRET": MASTER,
        }
        world = World(None, comfyui, htpasswd, flows)  # type: ignore[arg-type]
        world.write(**PASSWORDS)
        async with running_gateway(
            settings, state_dir=folder, confdir=confdir, arguments=("-w", str(flows))
        ) as world.gateway:
            yield world


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with client() as session:
        yield session


async def test_a_browser_is_asked_for_a_password_and_nobody_passes_without(
    world: World, http: aiohttp.ClientSession
) -> None:
    for headers in ({}, {"X-Comfy-User": "alice"}, {"Authorization": "Bearer x"}):
        status, answer, _ = await ask(http, f"{world.url}/?nobody&user_id=alice", headers=headers | PAGE)
        assert status == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="ComfyUI", charset="UTF-8"'
        assert "Location" not in answer.headers
    assert world.comfyui.of("nobody") == []
    assert (await ask(http, f"{world.url}/gateway/healthz"))[0] == 200


async def test_a_password_proves_who_somebody_is_and_comfyui_never_sees_it(
    world: World, http: aiohttp.ClientSession
) -> None:
    status, answer, _ = await ask(http, f"{world.url}/api/known?user_id=bob", headers=basic("alice"))
    assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "alice")
    prompt = {"prompt": {}, "client_id": "bob"}
    status, answer, _ = await ask(
        http, f"{world.url}/prompt", method="POST", json=prompt, headers=basic("alice")
    )
    assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "alice")
    async with http.ws_connect(f"{world.url}/ws?clientId=a", headers=basic("alice")) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
    (heard,) = world.comfyui.of("known")
    assert heard.path == "/api/known"
    assert "Authorization" not in heard.headers


async def test_a_page_load_leaves_a_session_for_sockets_without_a_password(
    world: World, http: aiohttp.ClientSession
) -> None:
    status, answer, _ = await ask(http, f"{world.url}/", headers=basic("bob") | PAGE)
    assert status == 200
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[PLAIN_NAME]
    assert int(cookie["max-age"]) <= 3600
    assert cookie["httponly"]
    headers = {"Cookie": f"{PLAIN_NAME}={cookie.value}"}
    async with http.ws_connect(f"{world.url}/ws?clientId=b", headers=headers) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
        out = headers | {"Origin": world.url}
        status, answer, text = await ask(http, f"{world.url}/gateway/signout", method="POST", headers=out)
        assert status == 200
        assert "Max-Age=0" in answer.headers["Set-Cookie"]
        assert "Signed out" in text
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert (await ask(http, f"{world.url}/queue", headers=headers))[0] == 401, "replayed"
    session = SessionCookies(Keys(MASTER.encode()).session_key(), "basic").read(cookie.value)
    assert session is not None
    for key, purpose in ((Keys(b"x" * 40), "basic"), (Keys(MASTER.encode()), "tokens")):
        value = SessionCookies(key.session_key(), purpose).write(session, now_s=0, secure=False)
        headers = {"Cookie": value.partition(";")[0]}
        assert (await ask(http, f"{world.url}/queue", headers=headers))[0] == 401


async def test_guessing_passwords_is_held_up_by_address_and_by_name(
    world: World, http: aiohttp.ClientSession
) -> None:
    assert (await ask(http, f"{world.url}/queue", headers=basic("carol")))[0] == 200
    async with client("127.0.4.1") as attacker:
        for n in range(MAX_FAILURES):
            assert (await ask(attacker, f"{world.url}/queue", headers=basic("carol", f"{n}")))[0] == 401
        status, answer, text = await ask(attacker, f"{world.url}/queue", headers=basic("bob", "x"))
        assert status == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert json.loads(text)["error"]["type"] == "too_many_failed_sign_ins"
    async with client("127.0.4.2") as neighbour:
        status, _, _ = await ask(neighbour, f"{world.url}/queue", headers=basic("carol", "again"))
        assert status == 429
    assert (await ask(http, f"{world.url}/queue", headers=basic("carol")))[0] == 200, "she is no guesser"


async def test_an_upload_with_a_wrong_password_is_refused_before_it_is_sent(
    world: World,
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(512):
            sent += 1 << 20
            yield b"x" * (1 << 20)

    headers = basic("alice", "wrong") | {"Content-Length": str(512 << 20)}
    async with client("127.0.4.3") as http:
        try:
            status, _, _ = await ask(
                http, f"{world.url}/upload/image?large", method="POST", data=body(), headers=headers
            )
        except aiohttp.ClientError:
            status = 401  # the connection was closed while the client still sent
    assert status == 401
    assert sent < 256 << 20
    assert world.comfyui.of("large") == []


async def test_operators_are_named_by_the_settings(world: World, http: aiohttp.ClientSession) -> None:
    assert (await ask(http, f"{world.url}/gateway/metrics", headers=basic("alice")))[0] == 403
    assert (await ask(http, f"{world.url}/gateway/metrics", headers=basic("olga")))[0] == 200


async def test_no_password_is_in_the_log_or_in_the_files_of_flows(
    world: World, http: aiohttp.ClientSession
) -> None:
    _, answer, _ = await ask(http, f"{world.url}/?flows-marker", headers=basic("olga") | PAGE)
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[PLAIN_NAME].value
    flows = await flows_hold(world.flows, "flows-marker")
    secrets = [cookie, MASTER, *PASSWORDS.values()]
    secrets += [basic(name)["Authorization"].removeprefix("Basic ") for name in PASSWORDS]
    secrets += [line.partition(":")[2] for line in world.htpasswd.read_text().splitlines()]
    for secret in secrets:
        assert secret.encode() not in flows
        assert secret not in world.gateway.log
        assert secret not in world.comfyui.everything


async def test_who_is_removed_is_out_within_seconds(world: World, http: aiohttp.ClientSession) -> None:
    _, answer, _ = await ask(http, f"{world.url}/", headers=basic("bob") | PAGE)
    headers = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    async with http.ws_connect(f"{world.url}/ws?clientId=b", headers=headers) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
        world.write(**{name: password for name, password in PASSWORDS.items() if name != "bob"})
        assert (await socket.receive(timeout=6)).type is aiohttp.WSMsgType.CLOSE
    assert (await ask(http, f"{world.url}/queue", headers=headers))[0] == 401
    assert (await ask(http, f"{world.url}/queue", headers=basic("bob")))[0] == 401

    async def still_known() -> bool:
        return (await ask(http, f"{world.url}/queue", headers=basic("alice")))[0] == 200

    await wait_for(still_known, "the others stay")
