"""Cookies of sign-in reach the browser, and nobody who reads flows."""

import pytest
from mitmproxy import http
from mitmproxy.proxy.layers.http import _hooks as events

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.session_cookie import PLAIN_NAME, SECURE_NAME, SessionCookies, SignedIn
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.secret_headers import BLOT, hidden
from comfy_gateway.service.people.signed_in import SignedInSessions
from tests.fakes.clock import FakeClock
from tests.fakes.sign_outs import FakeSignOuts
from tests.hooks.stand import ALICE, POD, Stand, ask

SESSIONS = SignedInSessions(
    cookies=SessionCookies(Keys(bytes(range(32))).session_key(), "basic"),
    store=FakeSignOuts(),
    clock=FakeClock(),
    life_s=1000,
)
SESSION = SignedIn("alice", "seal", "id", 1_900_000_000)
PAGE = http.Response.make(200, b"<html>", {"Content-Type": "text/html"})


def cookies_of(flow: http.HTTPFlow) -> list[str]:
    assert flow.response is not None
    return flow.response.headers.get_all("set-cookie")


async def begin(stand: Stand, *, method: str = "GET") -> http.HTTPFlow:
    """A request whose browser is to get a session."""
    stand.change(sessions=SESSIONS)
    flow = await stand.arrive(ask("/", method=method))
    flow.metadata[edge.REMEMBER_SESSION] = ["alice", "seal", "id", 1_900_000_000]
    return flow


async def head_of_answer(stand: Stand, flow: http.HTTPFlow, response: http.Response) -> None:
    """What is sent to the client at once when the answer streams."""
    flow.response = response
    await stand.trigger(events.HttpResponseHeadersHook(flow))


@pytest.mark.parametrize("is_https", [False, True])
async def test_a_browser_gets_its_cookie_and_the_flow_keeps_a_blot(stand: Stand, is_https: bool) -> None:
    stand.keep_bytes = 1 << 20
    flow = await begin(stand)
    flow.metadata[edge.HTTPS] = is_https
    await head_of_answer(stand, flow, PAGE.copy())
    (cookie,) = cookies_of(flow)
    name = SECURE_NAME if is_https else PLAIN_NAME
    value = cookie.removeprefix(f"{name}=").partition(";")[0]
    assert SESSIONS.find([value]) == SESSION
    assert flow.response is not None
    assert flow.response.stream is True, "else its head would be sent after the blot"
    assert flow.response.headers["Cache-Control"] == "no-store"
    await stand.answer(flow)
    blotted = cookies_of(flow)[0]
    assert blotted.startswith(f"{name}={BLOT}; ")
    assert "HttpOnly" in blotted
    assert value not in repr(flow.get_state())


@pytest.mark.parametrize(
    "response",
    [
        http.Response.make(304),
        http.Response.make(200, b"", {"Content-Length": "0"}),
        http.Response.make(500, b"broken"),
    ],
)
async def test_an_answer_that_cannot_stream_carries_no_session(stand: Stand, response: http.Response) -> None:
    flow = await begin(stand)
    await head_of_answer(stand, flow, response)
    assert cookies_of(flow) == []


async def test_no_server_behind_us_sets_the_cookie_of_a_session(stand: Stand) -> None:
    flow = await stand.arrive(ask("/"))
    theirs = PAGE.copy()
    theirs.headers.set_all("Set-Cookie", [f"{PLAIN_NAME}=evil; Path=/", "theirs=1", f"{SECURE_NAME}=evil"])
    await head_of_answer(stand, flow, theirs)
    assert cookies_of(flow) == ["theirs=1"]
    theirs = PAGE.copy()
    theirs.headers["Set-Cookie"] = f"{PLAIN_NAME}=evil"
    await head_of_answer(stand, flow, theirs)
    assert cookies_of(flow) == []


async def test_tokens_of_pods_and_of_the_site_are_blotted_once_they_are_sent(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)
    pods = await stand.arrive(ask("/system_stats"))
    assert hidden(pods.request)["X-Comfy-Gateway-Token"] == POD.token
    await stand.answer(pods)
    sites = await stand.exchange(ask("/gateway/healthz"))
    broken = await stand.arrive(ask("/system_stats"))
    await stand.break_off(broken)
    for flow in (pods, sites, broken):
        state = repr(flow.get_state())
        assert str(POD.token) not in state
        assert stand.edge.site_key not in state
        assert BLOT in state
