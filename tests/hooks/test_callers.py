"""What a request may say about its sender, what is taken off it, and what reaches ComfyUI of that."""

from collections.abc import Sequence

import pytest
from mitmproxy import http

from comfy_gateway.core.people.callers import TrustedProxies
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.sign_in import AuthMode
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.secret_headers import hidden
from tests.hooks.stand import ALICE, PEER, Stand, ask, prompt, socket

FAR = "203.0.113.7"
TRUSTING = TrustedProxies(["127.0.0.0/8"])
type Pairs = Sequence[tuple[str, str]]

OF_PROXIES: Pairs = [
    ("Forwarded", "for=6.6.6.6;host=evil.example;proto=https"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-User", "root"),
    ("X-Forwarded-Access-Token", "secret"),
    ("X-Auth-Request-Email", "root@example.com"),
    ("Remote-User", "root"),
]


@pytest.mark.parametrize("trusted", [TrustedProxies(), TRUSTING])
async def test_what_proxies_say_to_us_is_not_said_to_comfyui(stand: Stand, trusted: TrustedProxies) -> None:
    stand.meet(trusted=trusted)
    for flow in (
        ask(headers=OF_PROXIES),
        prompt(b'{"prompt": {}}', headers=OF_PROXIES),
        socket(headers=OF_PROXIES),
    ):
        headers = (await stand.arrive(flow)).request.headers
        assert not {name.lower() for name, _ in OF_PROXIES} & {name.lower() for name in headers}


async def test_a_trusted_proxy_says_where_the_caller_is_and_what_it_asked(stand: Stand) -> None:
    stand.meet(trusted=TRUSTING, is_public_https=False)
    told = [
        ("X-Forwarded-For", f"1.2.3.4, {FAR}"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "gpu-box"),
        ("Origin", "https://gpu-box"),
    ]
    flow = await stand.arrive(ask(headers=told, host="127.0.0.1:8000"))
    assert stand.where(flow) == "duty-1"
    assert flow.request.headers["X-Forwarded-For"] == FAR
    assert flow.request.headers["X-Forwarded-Proto"] == "https"
    assert flow.request.headers["X-Forwarded-Host"] == "gpu-box"
    assert flow.metadata[edge.PEER] == FAR


async def test_a_host_that_a_trusted_proxy_names_can_be_foreign(stand: Stand) -> None:
    stand.meet(trusted=TRUSTING)
    flow = await stand.arrive(ask(headers=[("X-Forwarded-Host", "evil.example")]))
    assert stand.where(flow) == "403"


async def test_nobody_else_says_so(stand: Stand) -> None:
    flow = await stand.arrive(ask(headers=[("X-Forwarded-For", FAR), ("X-Forwarded-Host", "evil.example")]))
    assert stand.where(flow) == "duty-1"
    assert flow.request.headers["X-Forwarded-For"] == PEER


async def test_an_address_that_stands_for_a_user_is_the_one_behind_the_proxy(stand: Stand) -> None:
    stand.meet(trusted=TRUSTING)
    stand.change(identity=IdentityRules(use_client_ip=True))
    flow = await stand.arrive(ask(user=None, headers=[("X-Forwarded-For", FAR)]))
    assert flow.metadata[edge.USER] == UserId(IdKind.ADDRESS, FAR).key


async def test_without_sign_in_a_proxys_header_may_name_the_user_where_the_settings_say_so(
    stand: Stand,
) -> None:
    rules = IdentityRules(header="X-Forwarded-User")
    stand.meet(identity=rules)
    stand.change(identity=rules)
    flow = await stand.arrive(ask(user=None, headers=[("X-Forwarded-User", "alice")]))
    assert flow.metadata[edge.USER] == ALICE.key


@pytest.mark.parametrize("mode", [AuthMode.TOKENS, AuthMode.BASIC, AuthMode.PROXY])
async def test_with_sign_in_nothing_that_names_somebody_is_left_in_the_flow(
    stand: Stand, mode: AuthMode
) -> None:
    """Also while the gateway starts, and whatever becomes of the request."""
    stand.meet(mode=mode, identity=IdentityRules(cookie="sso"))
    stand.door.close()
    flow = ask(
        "/queue?a=1&user_id=alice&b=2",
        headers=[
            ("Authorization", "Bearer SECRET"),
            ("Proxy-Authorization", "Basic SECRET"),
            ("Cookie", "keep=1; comfy_gateway_session=SECRET; comfy_gateway_user=SECRET"),
            ("Cookie", "sso=SECRET; __Host-comfy_gateway_session=SECRET; theirs=2"),
        ],
    )
    await stand.arrive(flow)
    assert stand.where(flow) == "503"
    assert flow.request.path == "/queue?a=1&b=2"
    assert flow.request.headers.get_all("cookie") == ["keep=1; theirs=2"]
    assert "SECRET" not in repr(flow.get_state())
    assert "alice" not in repr(flow.get_state())


async def test_without_sign_in_authorization_is_the_servers_own_affair(stand: Stand) -> None:
    flow = await stand.arrive(ask(headers=[("Authorization", "Bearer of-a-custom-node")]))
    assert hidden(flow.request) == {"Authorization": "Bearer of-a-custom-node"}


async def test_a_cookie_header_of_ours_alone_is_left_out(stand: Stand) -> None:
    stand.meet(mode=AuthMode.PROXY)
    stand.door.close()
    flow = await stand.arrive(ask(headers=[("Cookie", "comfy_gateway_session=x")]))
    assert "Cookie" not in flow.request.headers


# HTTPS ------------------------------------------------------------------------------------------------------


def by_tls(flow: http.HTTPFlow) -> http.HTTPFlow:
    flow.client_conn.timestamp_tls_setup = 1.0
    return flow


PAGE = ("Accept", "text/html")


async def test_plain_http_is_sent_to_https_where_we_speak_it(stand: Stand) -> None:
    stand.meet(has_tls=True)
    page = await stand.arrive(ask("/?a=1", headers=[PAGE]))
    assert page.response is not None
    assert page.response.status_code == 308
    assert page.response.headers["Location"] == "https://127.0.0.1:8000/?a=1"
    script = await stand.exchange(ask())
    assert script.response is not None
    assert script.response.json()["error"]["type"] == "https_only"
    assert stand.where(await stand.arrive(ask("/gateway/healthz"))) == "site /gateway/healthz"
    assert stand.where(await stand.arrive(by_tls(ask()))) == "duty-1"


async def test_a_trusted_proxy_may_speak_plain_http_to_us(stand: Stand) -> None:
    stand.meet(has_tls=True, trusted=TRUSTING)
    assert stand.where(await stand.arrive(ask(headers=[("X-Forwarded-Proto", "https")]))) == "duty-1"


async def test_a_page_that_is_not_ours_is_not_redirected(stand: Stand) -> None:
    stand.meet(has_tls=True)
    assert stand.where(await stand.arrive(ask("/", headers=[PAGE], host="evil.example"))) == "403"


# Pages of other sites ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "where"),
    [
        ("POST", [("Sec-Fetch-Site", "cross-site")], "403"),
        ("DELETE", [("Sec-Fetch-Site", "same-site")], "403"),
        ("POST", [("Sec-Fetch-Site", "same-origin")], "duty-1"),
        ("POST", [("Sec-Fetch-Site", "none")], "duty-1"),
        ("POST", [], "duty-1"),
        ("GET", [("Sec-Fetch-Site", "cross-site")], "duty-1"),
        ("POST", [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://127.0.0.1:8000")], "duty-1"),
        ("POST", [("Sec-Fetch-Site", "same-origin"), ("Origin", "http://evil.example")], "403"),
    ],
)
async def test_a_page_of_another_site_changes_nothing(
    stand: Stand, method: str, headers: Pairs, where: str
) -> None:
    assert stand.where(await stand.arrive(ask("/free", method=method, headers=headers))) == where


@pytest.mark.parametrize("order", ["promote", "keep", "give-back"])
async def test_a_page_of_another_site_gives_nobodys_pod_back(stand: Stand, order: str) -> None:
    path = f"/gateway/api/v1/me/{order}"
    foreign = [("Sec-Fetch-Site", "cross-site")]
    assert stand.where(await stand.arrive(ask(path, method="POST", headers=foreign))) == "403"
    far = ask(path, method="POST")
    far.client_conn.peername = (FAR, 4711)
    assert stand.where(await stand.arrive(far)) == f"site {path}"


# The operator's pages without sign-in -----------------------------------------------------------------------


async def test_without_sign_in_the_operators_pages_answer_this_machine_alone(stand: Stand) -> None:
    path = "/gateway/api/v1/sessions"
    assert stand.where(await stand.arrive(ask(path))) == f"site {path}"
    far = ask(path)
    far.client_conn.peername = (FAR, 4711)
    await stand.exchange(far)
    assert far.response is not None
    assert far.response.status_code == 403
    assert far.response.json()["error"]["type"] == "loopback_only"
    for forwarded in ("X-Forwarded-For", "Forwarded", "Via"):
        assert stand.where(await stand.arrive(ask(path, headers=[(forwarded, "1.2.3.4")]))) == "403"
    stand.meet(trusted=TRUSTING)
    assert stand.where(await stand.arrive(ask(path, headers=[("X-Forwarded-For", PEER)]))) == "403"


async def test_the_site_is_told_what_somebody_may_do(stand: Stand) -> None:
    flow = await stand.arrive(ask("/gateway/api/v1/sessions"))
    assert flow.request.headers["X-Gateway-Site-Role"] == "operator"
    assert "X-Gateway-Site-Proven" not in flow.request.headers
    lies = [
        ("X-Gateway-Site-Role", "operator"),
        ("X-Gateway-Site-Proven", "1"),
        ("X-Gateway-Site-Https", "1"),
    ]
    far = ask("/gateway/metrics", headers=[*lies, ("X-Gateway-Site-Session", "x")])
    far.client_conn.peername = (FAR, 4711)
    await stand.arrive(far)
    assert stand.where(far) == "site /gateway/metrics"
    assert not [name for name in far.request.headers if name.lower() in {lie.lower() for lie, _ in lies}]
