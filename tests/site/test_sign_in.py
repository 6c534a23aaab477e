"""The pages on which a browser gets its session, and gives it back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from comfy_gateway.core import site_contract
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.session_cookie import PLAIN_NAME, SECURE_NAME, SessionCookies, SignedIn
from comfy_gateway.core.people.sign_in import BEARER, too_many_failures, wrong_credentials
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.service.people.signed_in import SignedInSessions
from comfy_gateway.site.app import build_app
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.sign_in import MAX_FORM_BYTES, SignInPages
from tests.fakes.clock import FakeClock
from tests.fakes.sign_outs import FakeSignOuts

KEY = "the-key"
ALICE = "named:alice"


@dataclass
class Stand:
    """A site with nothing but these pages."""

    http: aiohttp.ClientSession
    sessions: SignedInSessions
    url: str = ""
    entered: list[tuple[str, str]] = field(default_factory=list)
    answer: Refusal | None = None

    async def enter(self, token: str, address: str) -> SignedIn | Refusal:
        """What the sign-in mode does."""
        self.entered.append((token, address))
        return self.answer or self.sessions.begin("alice", "seal")

    async def ask(
        self, method: str, path: str, *, data: object = None, **headers: str
    ) -> tuple[aiohttp.ClientResponse, str]:
        """As the hooks pass it on."""
        known = {"User": site_contract.USER, "Session": site_contract.SESSION, "Https": site_contract.HTTPS}
        sent = {known.get(name, name): value for name, value in headers.items()}
        sent |= {site_contract.KEY: KEY, site_contract.PEER: "192.0.2.1"}
        async with self.http.request(
            method, self.url + path, data=data, headers=sent, allow_redirects=False
        ) as response:
            return response, await response.text()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    sessions = SignedInSessions(
        cookies=SessionCookies(Keys(bytes(range(32))).session_key(), "tokens"),
        store=FakeSignOuts(),
        clock=FakeClock(),
        life_s=1000,
    )
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        stand = Stand(http, sessions)
        site = SiteServer(build_app(key=KEY, parts=[SignInPages(sessions, stand.enter)]))
        stand.url = (await site.start()).url("")
        yield stand
        await site.aclose()


async def test_a_right_token_gets_a_session_and_goes_on(stand: Stand) -> None:
    form = {"token": " a token ", "next": "/?a=1"}
    response, text = await stand.ask("POST", "/gateway/signin", data=form)
    assert (response.status, response.headers["Location"]) == (303, "/?a=1")
    assert text, "only what has a body can stream, and only what streams is redacted"
    assert stand.entered == [("a token", "192.0.2.1")]
    assert response.headers["Set-Cookie"].startswith(f"{PLAIN_NAME}=")
    response, _ = await stand.ask("POST", "/gateway/signin", data=form, Https="1")
    assert response.headers["Set-Cookie"].startswith(f"{SECURE_NAME}=")
    assert response.headers["Set-Cookie"].endswith("; Secure")


@pytest.mark.parametrize("refusal", [wrong_credentials(BEARER), too_many_failures(9)])
async def test_why_not_is_told_on_the_page(stand: Stand, refusal: Refusal) -> None:
    stand.answer = refusal
    response, text = await stand.ask("POST", "/gateway/signin", data={"token": "SECRET", "next": "/x"})
    assert response.status == refusal.status
    assert refusal.message in text
    assert 'role="alert"' in text
    assert 'value="/x"' in text
    assert "SECRET" not in text
    assert response.headers.get("Retry-After") == (
        str(refusal.retry_after_s) if refusal.retry_after_s else None
    )
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"token": "x"}', "application/json", 400),
        (b"token=x", "text/plain", 400),
        (b"token=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % n for n in range(20)), "application/x-www-form-urlencoded", 400),
        (b"token=" + b"x" * MAX_FORM_BYTES, "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_is_no_form_of_ours_is_refused(stand: Stand, body: bytes, kind: str, status: int) -> None:
    response, _ = await stand.ask("POST", "/gateway/signin", data=body, **{"Content-Type": kind})
    assert response.status == status
    assert stand.entered == []


async def test_an_empty_form_is_a_wrong_token(stand: Stand) -> None:
    stand.answer = wrong_credentials(BEARER)
    response, _ = await stand.ask("POST", "/gateway/signin", data={"next": "//evil.example"})
    assert response.status == 401
    assert stand.entered == [("", "192.0.2.1")]


async def test_text_of_others_is_text(stand: Stand) -> None:
    _, text = await stand.ask("GET", "/gateway/signin?next=/%22%3E%3Cscript%3E")
    assert "<script>" not in text
    _, text = await stand.ask("GET", "/gateway/signin", User="named:<script>$back")
    assert "Signed in as &lt;script&gt;$back" in text


async def test_signing_out_ends_the_session_that_the_hooks_found(stand: Stand) -> None:
    session = stand.sessions.begin("alice", "seal")
    cookie = stand.sessions.cookie(session, secure=False).partition(";")[0].partition("=")[2]
    response, _ = await stand.ask("POST", "/gateway/signout", User=ALICE, Session=session.session_id)
    assert (response.status, response.headers["Location"]) == (303, "/gateway/signin")
    assert response.headers["Set-Cookie"].startswith(f"{PLAIN_NAME}=; Max-Age=0")
    assert stand.sessions.find([cookie]) is None
    response, _ = await stand.ask("POST", "/gateway/signout", User=ALICE)
    assert response.status == 303, "nothing to end"
    response, _ = await stand.ask("GET", "/gateway/signout", User=ALICE, Session=session.session_id)
    assert response.status == 404, "a link or a picture signs nobody out"
