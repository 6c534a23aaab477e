"""``AUTH_MODE=tokens`` by HTTPS that mitmproxy serves: one real gateway, real clients, and people who attack it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
import trustme

from comfy_gateway.accounts.editor import UsersEditor
from comfy_gateway.adapters.argon2_hashes import Argon2Hashes
from comfy_gateway.adapters.users_file import UsersFile
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.session_cookie import SECURE_NAME, SessionCookies, SignedIn
from tests.e2e.browser import chromium
from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.way_in import NotingComfyUI, ask, client, flows_hold, noting_comfyui
from tests.programs import require_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_FAILURES = 4
MASTER = "m" * 40
PAGE = {"Accept": "text/html"}
USERS = (
    "carol", "scripted user", "dave", "traveller", "erin", "frank", "grace", "heidi", "ivan", "judy", "kim", "last",
    "mallory",
)  # fmt: skip


@dataclass
class World:
    """A gateway that asks for tokens, and who may have one."""

    gateway: GatewayProcess
    comfyui: NotingComfyUI
    trust: ssl.SSLContext
    editor: UsersEditor
    tokens: dict[str, str]
    flows: Path
    secrets: list[str] = field(default_factory=list)
    """What must be found nowhere."""

    @property
    def url(self) -> str:
        return self.gateway.url

    async def sign_in(self, http: aiohttp.ClientSession, token: str, back: str = "/") -> str:
        """The cookie that the form is answered with."""
        form = {"token": token, "next": back}
        status, answer, text = await ask(http, f"{self.url}/gateway/signin", method="POST", data=form)
        assert (status, answer.headers["Location"]) == (303, back), text
        value = SimpleCookie(answer.headers["Set-Cookie"])[SECURE_NAME].value
        self.secrets.append(value)
        return f"{SECURE_NAME}={value}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("tokens")
    authority = trustme.CA()
    served = authority.issue_cert("127.0.0.1")
    served.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    served.private_key_pem.write_to_path(folder / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    editor = UsersEditor(folder / "users.yaml")
    hashes = Argon2Hashes()
    people = dict.fromkeys(USERS, Role.USER) | {"olga": Role.OPERATOR}
    tokens = {name: editor.add(name, role, hashes) or "" for name, role in people.items()}
    flows = folder / "flows"
    async with noting_comfyui() as comfyui:
        settings = {
            "AUTH_MODE": "tokens",
            "AUTH_USERS_FILE": str(folder / "users.yaml"),
            "AUTH_MAX_FAILURES": str(MAX_FAILURES),
            "TLS_CERT": str(folder / "cert.pem"),
            "TLS_KEY": str(folder / "key.pem"),
            "DUTY_POD_URL": comfyui.url,
            "GATEWAY_SECRET": MASTER,
        }
        async with running_gateway(
            settings, state_dir=folder, confdir=confdir, arguments=("-w", str(flows))
        ) as gateway:
            yield World(gateway, comfyui, trust, editor, tokens, flows, [*tokens.values()])


@pytest_asyncio.fixture(loop_scope="module")
async def http(world: World) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps no cookies, from an address that has failed at nothing."""
    async with client("127.0.0.1", trust=world.trust) as session:
        yield session


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_nobody_gets_anywhere_without_a_token(world: World, http: aiohttp.ClientSession) -> None:
    lies = {"X-Comfy-User": "carol", "Cookie": "comfy_gateway_user=carol", "X-Forwarded-User": "carol"}
    asked = [
        "/queue?nobody",
        "/system_stats?nobody",
        "/assets/nobody.js",
        "/view?filename=nobody.png",
        "/api/nobody?user_id=carol",
    ]
    for path in [*asked, "/gateway/nobody", "/gateway/metrics"]:
        status, answer, text = await ask(http, f"{world.url}{path}", headers=lies)
        assert status == 401, path
        assert json.loads(text)["error"]["type"] == "sign_in_required"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    status, _, _ = await ask(http, f"{world.url}/prompt?nobody", method="POST", json={"client_id": "carol"})
    assert status == 401
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{world.url}/ws?clientId=nobody", headers=lies)
    assert refused.value.status == 401
    assert world.comfyui.of("nobody") == [], "no upstream without identity"
    for path in ("/gateway/healthz", "/gateway/readyz", "/gateway/signin"):
        assert (await ask(http, f"{world.url}{path}"))[0] == 200


async def test_a_script_works_with_its_token_and_comfyui_never_sees_it(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["scripted user"]
    headers = bearer(token) | {"X-Comfy-User": "carol", "Cookie": "comfy_gateway_user=x; theirs=1"}
    status, answer, _ = await ask(http, f"{world.url}/api/scripted?a=1&user_id=carol", headers=headers)
    assert status == 200
    assert answer.headers["X-Comfy-Session-User"] == "scripted user"
    assert "Set-Cookie" not in answer.headers
    (heard,) = world.comfyui.of("scripted")
    assert heard.path == "/api/scripted?a=1"
    assert heard.headers["Cookie"] == "theirs=1"
    assert heard.headers["X-Forwarded-Proto"] == "https"
    assert not {"Authorization", "X-Comfy-User"} & heard.headers.keys()
    prompt = {"prompt": {}, "client_id": "scripted-tab"}
    status, answer, _ = await ask(http, f"{world.url}/prompt", method="POST", json=prompt, headers=headers)
    assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "scripted user")
    async with http.ws_connect(f"{world.url}/ws?clientId=scripted-tab", headers=headers) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
    assert token not in world.comfyui.everything
    assert "carol" not in world.comfyui.everything


async def test_a_browser_signs_in_on_a_page_and_comes_back_to_where_it_was(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["dave"]
    status, answer, _ = await ask(http, f"{world.url}/?workflow=1", headers=PAGE)
    assert (status, answer.headers["Location"]) == (303, "/gateway/signin?next=%2F%3Fworkflow%3D1")
    status, answer, page = await ask(http, f"{world.url}{answer.headers['Location']}", headers=PAGE)
    assert status == 200
    assert 'name="next" value="/?workflow=1"' in page
    assert "http" not in page.replace("http-equiv", ""), "nothing comes from elsewhere"
    assert "<script" not in page
    assert "width=device-width" in page
    assert "prefers-color-scheme:dark" in page
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy

    form = {"token": token, "next": "/?workflow=1"}
    status, answer, _ = await ask(http, f"{world.url}/gateway/signin", method="POST", data=form)
    assert (status, answer.headers["Location"]) == (303, "/?workflow=1")
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[SECURE_NAME]
    world.secrets.append(cookie.value)
    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"
    headers = {"Cookie": f"{SECURE_NAME}={cookie.value}"}
    status, answer, page = await ask(http, f"{world.url}/?workflow=1", headers=headers | PAGE)
    assert (status, page) == (200, "<title>ComfyUI</title>")
    assert answer.headers["X-Comfy-Session-User"] == "dave"
    async with http.ws_connect(
        f"{world.url}/ws?clientId=dave-tab", headers=headers | {"Origin": world.url}
    ) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
    _, _, page = await ask(http, f"{world.url}/gateway/signin", headers=headers)
    assert "Signed in as dave" in page
    assert cookie.value not in world.comfyui.everything


@pytest.mark.parametrize(
    "back", ["//evil.example/", "/\\evil.example", "https://evil.example/", "/\t/evil.example"]
)
async def test_the_page_sends_nobody_elsewhere(world: World, http: aiohttp.ClientSession, back: str) -> None:
    _, _, page = await ask(http, f"{world.url}/gateway/signin?next={quote(back, safe='')}")
    assert 'name="next" value="/"' in page
    token = world.tokens["traveller"]
    form = {"token": token, "next": back}
    status, answer, _ = await ask(http, f"{world.url}/gateway/signin", method="POST", data=form)
    assert (status, answer.headers["Location"]) == (303, "/")


async def test_a_wrong_token_is_told_on_the_page_and_not_repeated(world: World) -> None:
    async with client("127.0.1.1", trust=world.trust) as http:
        form = {"token": "<b>wrong</b>", "next": "/x"}
        status, answer, page = await ask(http, f"{world.url}/gateway/signin", method="POST", data=form)
        assert status == 401
        assert "is not valid" in page
        assert "wrong</b>" not in page
        assert 'value="/x"' in page
        assert "Set-Cookie" not in answer.headers


async def test_signing_out_makes_a_copied_cookie_worthless(world: World, http: aiohttp.ClientSession) -> None:
    token = world.tokens["erin"]
    cookie, other = await world.sign_in(http, token), await world.sign_in(http, token)
    async with http.ws_connect(f"{world.url}/ws?clientId=erin", headers={"Cookie": cookie}) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
        status, answer, _ = await ask(
            http, f"{world.url}/gateway/signout", method="POST", headers={"Cookie": cookie}
        )
        assert (status, answer.headers["Location"]) == (303, "/gateway/signin")
        assert "Max-Age=0" in answer.headers["Set-Cookie"]
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert (await ask(http, f"{world.url}/queue", headers={"Cookie": cookie}))[0] == 401
    assert (await ask(http, f"{world.url}/queue", headers={"Cookie": other}))[0] == 200


async def test_a_cookie_of_another_secret_or_changed_by_a_letter_is_none(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["frank"]
    cookie = await world.sign_in(http, token)
    session = SessionCookies(Keys(MASTER.encode()).session_key(), "tokens").read(cookie.partition("=")[2])
    assert session is not None
    forged = SessionCookies(Keys(b"x" * 40).session_key(), "tokens").write(session, now_s=0, secure=True)
    late = SignedIn(session.name, session.seal, session.session_id, 1)
    expired = SessionCookies(Keys(MASTER.encode()).session_key(), "tokens").write(late, now_s=0, secure=True)
    carols = SignedIn("carol", session.seal, session.session_id, session.ends_at_s)
    unsealed = SessionCookies(Keys(MASTER.encode()).session_key(), "tokens").write(
        carols, now_s=0, secure=True
    )
    attempts = [forged, expired, unsealed, cookie[:-9] + ("a" if cookie[-9] != "a" else "b") + cookie[-8:]]
    attempts.append(cookie.replace(SECURE_NAME, "comfy_gateway_session"))
    for attempt in attempts:
        status, _, _ = await ask(http, f"{world.url}/queue", headers={"Cookie": attempt.partition(";")[0]})
        assert status == 401, attempt
    assert (await ask(http, f"{world.url}/queue", headers={"Cookie": cookie}))[0] == 200


async def test_who_is_removed_is_out_within_seconds_sockets_too(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["grace"]
    headers = {"Cookie": await world.sign_in(http, token)}
    async with http.ws_connect(f"{world.url}/ws?clientId=grace", headers=headers) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "status"
        assert world.editor.remove("grace")
        assert (await socket.receive(timeout=6)).type is aiohttp.WSMsgType.CLOSE
    assert (await ask(http, f"{world.url}/queue", headers=headers))[0] == 401
    assert (await ask(http, f"{world.url}/queue", headers=bearer(token)))[0] == 401


async def test_guessing_is_held_up_at_its_address_and_nowhere_else(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["heidi"]
    cookie = await world.sign_in(http, token)
    key_id = UsersFile(world.editor._path).read().by_name["carol"].key_id
    async with client("127.0.2.2", trust=world.trust) as attacker:
        statuses = [
            (await ask(attacker, f"{world.url}/queue", headers=bearer(f"cgw_{key_id}_{n:043d}")))[0]
            for n in range(MAX_FAILURES)
        ]
        assert statuses == [401] * MAX_FAILURES
        lies = {"X-Forwarded-For": "10.1.2.3", "X-Real-IP": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
        status, answer, text = await ask(
            attacker, f"{world.url}/queue", headers=bearer(f"cgw_{key_id}_{'x' * 43}") | lies
        )
        assert status == 429, "an address that somebody claims changes nothing"
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
        assert json.loads(text)["error"]["type"] == "too_many_failed_sign_ins"
        form = {"token": "guess", "next": "/"}
        status, answer, page = await ask(
            attacker, f"{world.url}/gateway/signin", method="POST", data=form, headers=PAGE
        )
        assert status == 429
        assert "Too many failed attempts" in page
        assert "Retry-After" in answer.headers
        # Whoever is known is not held up, from the same address either.
        assert (await ask(attacker, f"{world.url}/queue", headers=bearer(token)))[0] == 200
        assert (await ask(attacker, f"{world.url}/queue", headers={"Cookie": cookie}))[0] == 200
    async with client("127.0.2.3", trust=world.trust) as neighbour:
        status, _, _ = await ask(neighbour, f"{world.url}/queue", headers=bearer(f"cgw_{key_id}_{'y' * 43}"))
        assert status == 429, "carol's name has been tried often enough, wherever from"
    assert (await ask(http, f"{world.url}/queue", headers=bearer(token)))[0] == 200


async def test_guesses_at_once_are_no_way_around_and_stop_nobody(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["ivan"]
    async with client("127.0.3.3", trust=world.trust) as attacker:

        async def guess(n: int) -> int:
            return (await ask(attacker, f"{world.url}/queue", headers=bearer(f"cgw_zzzzzzzz_{n:043d}")))[0]

        guesses = asyncio.gather(*(guess(n) for n in range(40)))
        meanwhile = await asyncio.gather(
            *(ask(http, f"{world.url}/queue", headers=bearer(token)) for _ in range(20))
        )
        statuses = await guesses
    assert {status for status, _, _ in meanwhile} == {200}
    assert statuses.count(401) <= MAX_FAILURES + 1
    assert set(statuses) <= {401, 429, 503}


async def test_another_sites_page_cannot_use_a_browsers_session(
    world: World, http: aiohttp.ClientSession
) -> None:
    headers = {"Cookie": await world.sign_in(http, world.tokens["judy"])}
    for foreign in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/prompt", "/interrupt?judy", "/gateway/signout", "/gateway/signin"):
            status, _, _ = await ask(
                http, f"{world.url}{path}", method="POST", json={}, headers=headers | foreign
            )
            assert status == 403, (foreign, path)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{world.url}/ws", headers=headers | {"Origin": "https://evil.example"})
    assert refused.value.status == 403
    assert world.comfyui.of("judy") == []
    own = headers | {"Origin": world.url, "Sec-Fetch-Site": "same-origin"}
    assert (await ask(http, f"{world.url}/interrupt", method="POST", json={}, headers=own))[0] == 200


async def test_the_operators_pages_are_for_operators(world: World, http: aiohttp.ClientSession) -> None:
    user, operator = world.tokens["kim"], world.tokens["olga"]
    for path, found in (("/gateway/metrics", 200), ("/gateway/api/v1/nothing", 404), ("/gateway/new", 404)):
        status, _, text = await ask(http, f"{world.url}{path}", headers=bearer(user))
        assert status == 403, path
        assert json.loads(text)["error"]["type"] == "operators_only"
        assert (await ask(http, f"{world.url}{path}", headers=bearer(operator)))[0] == found


async def test_plain_http_is_answered_by_nothing_but_the_way_to_https(world: World) -> None:
    plain = world.url.replace("https://", "http://")
    async with client() as http:
        status, answer, _ = await ask(http, f"{plain}/?a=1", headers=PAGE)
        assert (status, answer.headers["Location"]) == (308, f"{world.url}/?a=1")
        for path in ("/queue", "/gateway/signin", "/gateway/metrics"):
            status, _, text = await ask(http, f"{plain}{path}")
            assert status == 403
            assert json.loads(text)["error"]["type"] == "https_only"
        assert (await ask(http, f"{plain}/gateway/healthz"))[0] == 200


async def test_a_large_body_without_a_token_is_refused_before_it_is_sent(
    world: World, http: aiohttp.ClientSession
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(512):
            sent += 1 << 20
            yield b"x" * (1 << 20)

    headers = {"Content-Length": str(512 << 20)}
    try:
        status, _, _ = await ask(
            http, f"{world.url}/upload/image?large", method="POST", data=body(), headers=headers
        )
    except aiohttp.ClientError:
        status = 401  # the connection was closed while the client still sent
    assert status == 401
    assert sent < 256 << 20
    assert world.comfyui.of("large") == []


async def test_a_real_browser_signs_in_and_out(world: World) -> None:
    async with chromium(require_program("chromium")) as browser:
        context = await browser.new_context(
            ignore_https_errors=True, viewport={"width": 360, "height": 640}, color_scheme="dark"
        )
        page = await context.new_page()
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("requestfailed", lambda request: troubles.append(request.url))
        await page.goto(f"{world.url}/?workflow=1")
        assert page.url.startswith(f"{world.url}/gateway/signin")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, "it fits a telephone"
        background = "getComputedStyle(document.documentElement).colorScheme"
        assert await page.evaluate(background) == "light dark"
        assert await page.locator("input:visible").count() == 1
        await page.get_by_label("access token").fill(world.tokens["mallory"])
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{world.url}/?workflow=1")
        assert await page.title() == "ComfyUI"
        assert await page.evaluate("document.cookie") == "", "scripts cannot read it"
        opened = await page.evaluate(
            "new Promise(done => { const s = new WebSocket(`wss://${location.host}/ws?clientId=m`);"
            " s.onmessage = e => done(JSON.parse(e.data).type); s.onerror = () => done('error') })"
        )
        assert opened == "status"
        await page.goto(f"{world.url}/gateway/signin")
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("access token").wait_for()
        assert troubles == []
        await page.goto(f"{world.url}/")
        assert page.url.startswith(f"{world.url}/gateway/signin")


async def test_no_secret_is_in_the_log_or_in_the_files_of_flows(
    world: World, http: aiohttp.ClientSession
) -> None:
    token = world.tokens["last"]
    cookie = await world.sign_in(http, token)
    headers = bearer(token) | {"Cookie": cookie}
    assert (await ask(http, f"{world.url}/queue?flows-marker", headers=headers))[0] == 200
    flows = await flows_hold(world.flows, "flows-marker")
    assert b"[redacted]" in flows, "it is said that there was a session"
    for secret in [*world.secrets, MASTER]:
        assert secret.encode() not in flows
        assert secret not in world.gateway.log
        assert secret not in world.comfyui.everything
    assert "argon2" not in world.gateway.log
    users = UsersFile(world.editor._path).read()
    assert all(account.hash not in world.gateway.log for account in users.by_name.values())
    assert list(world.flows.parent.glob("secrets/tls-*.pem"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in world.flows.parent.glob("secrets/*"))
