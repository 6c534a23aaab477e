"""What a server gets to see of a request, and a client of its answer."""

import pytest
from mitmproxy import http

from comfy_gateway.core.people.hosts import AllowedHosts
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.hooks.secret_headers import BLOT, hidden
from tests.hooks.stand import ALICE, DUTY, HOME, HOST, PEER, POD, SITE_KEY, Stand, ask, prompt, socket
from tests.hooks.test_identity import cookie_of


@pytest.mark.parametrize(
    "path",
    [
        "/custom/plain",
        "/custom/a%2Fb",
        "/custom/%7Etilde",
        "/custom/~tilde",
        "/custom/%41?a=%41&b=a+b&c=%20#",
        "/custom//twice",
        "/proxy/https://x/y",
        "/custom?",
        "/custom/%E2%82%AC;v=1",
        "/api/userdata/workflows%2Fa%20b%2Bc.json?overwrite=true",
    ],
)
@pytest.mark.parametrize("prefix", ["", "/studio/comfy"])
async def test_a_path_goes_on_byte_for_byte_behind_the_servers_prefix(path: str, prefix: str) -> None:
    server = Backend("duty-0", Source.DUTY, Upstream("http", "home.test", 3000, prefix))
    stand = Stand(home=server, duty=server)
    with stand.in_mitmproxy():
        flow = await stand.arrive(ask(path))
    assert flow.request.path == prefix + path


async def test_scheme_host_port_and_host_header_are_the_servers(stand: Stand) -> None:
    flow = await stand.arrive(ask("/system_stats"))
    assert flow.request.url == "http://duty.test:3000/studio/comfy/system_stats"
    assert flow.request.headers.get_all("Host") == ["duty.test:3000"]
    assert flow.request.authority == ""
    stand.routes.set_private(ALICE, POD)
    flow = await stand.arrive(ask("/system_stats"))
    assert flow.request.url == "https://pod1.proxy.test/system_stats"
    assert flow.request.headers.get_all("Host") == ["pod1.proxy.test"]


async def test_a_request_without_host_or_with_an_address_in_its_line_names_the_server(stand: Stand) -> None:
    flow = ask("/system_stats", host=None)
    flow.request.data.authority = b"other.test:1"
    await stand.arrive(flow)
    assert flow.request.headers.get_all("Host") == ["duty.test:3000"]
    assert flow.request.data.authority == b""


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("comfy.example.com", "https://comfy.example.com"),
        ("inner-proxy", "https://comfy.example.com"),
    ],
)
async def test_our_own_origin_becomes_the_servers(stand: Stand, host: str, origin: str) -> None:
    stand.change(allowed_hosts=AllowedHosts.of([Upstream.parse("https://comfy.example.com")]))
    flow = await stand.arrive(ask("/system_stats", host=host, headers=[("Origin", origin)]))
    assert flow.request.headers["Origin"] == "http://duty.test:3000"


async def test_no_origin_is_made_up(stand: Stand) -> None:
    assert "Origin" not in (await stand.arrive(ask("/system_stats"))).request.headers


async def test_the_site_sees_no_origin(stand: Stand) -> None:
    flow = await stand.arrive(socket(headers=[("Origin", f"http://{HOST}")]))
    assert stand.where(flow) == "site /-/relay?clientId=tab"
    assert "Origin" not in flow.request.headers


HOP = [
    ("Connection", "keep-alive, X-Private"),
    ("connection", "X-Other"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic Zm9v"),
    ("TE", "trailers"),
    ("Upgrade", "h2c"),
    ("X-Private", "1"),
    ("x-other", "2"),
]


async def test_headers_of_one_hop_do_not_reach_the_server(stand: Stand) -> None:
    flow = await stand.arrive(ask("/system_stats", headers=[*HOP, ("Accept", "*/*")]))
    names = {name.lower() for name in flow.request.headers}
    assert names == {
        "host", "accept", "x-comfy-user", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Content-Length",
        "Cookie",
        "Origin",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
    ],
)
async def test_the_connection_header_cannot_remove_what_routing_framing_or_the_server_depends_on(
    stand: Stand, name: str
) -> None:
    headers = [("Connection", name), ("Origin", f"http://{HOST}"), ("Cookie", "a=1")]
    flow = await stand.arrive(ask("/upload/image", method="POST", body=b"123", headers=headers))
    assert name in flow.request.headers


async def test_headers_of_one_hop_do_not_reach_the_client(stand: Stand) -> None:
    answer = http.Response.make(200, b"{}", {"Content-Type": "application/json"})
    for name, value in HOP:
        answer.headers.add(name, value)
    flow = await stand.exchange(ask("/system_stats"), answer)
    assert flow.response is not None
    assert {name.lower() for name in flow.response.headers} == {
        "content-type", "content-length",
        "x-comfy-session-ready", "x-comfy-session-source", "x-comfy-session-user",
    }  # fmt: skip


async def test_an_answer_that_ends_with_its_connection_still_says_so(stand: Stand) -> None:
    """mitmproxy reads from it where the body ends."""
    answer = http.Response.make(200, b"", {"Connection": "close, X-Private", "X-Private": "1"})
    flow = await stand.exchange(ask("/system_stats"), answer)
    assert flow.response is not None
    assert flow.response.headers["Connection"] == "close"
    assert "X-Private" not in flow.response.headers


async def test_the_answer_to_a_handshake_stays_whole(stand: Stand) -> None:
    answer = http.Response.make(101, b"", {"Connection": "Upgrade", "Upgrade": "websocket"})
    flow = await stand.exchange(socket(), answer)
    assert flow.response is not None
    assert flow.response.headers["Connection"] == "Upgrade"
    assert flow.response.headers["Upgrade"] == "websocket"


async def test_a_handshake_reaches_the_site_without_compression(stand: Stand) -> None:
    request = (await stand.arrive(socket())).request
    assert request.headers["Connection"] == "Upgrade"
    assert request.headers["Upgrade"] == "websocket"
    assert request.headers["Sec-WebSocket-Key"]
    assert "Sec-WebSocket-Extensions" not in request.headers


@pytest.mark.parametrize("is_https", [False, True])
async def test_the_client_is_announced_by_us_and_not_by_itself(stand: Stand, is_https: bool) -> None:
    stand.meet(is_public_https=is_https)
    lies = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.example"),
    ]
    for flow in (
        ask("/system_stats", headers=lies),
        prompt(b'{"prompt": {}}', headers=lies),
        socket(headers=lies),
    ):
        headers = (await stand.arrive(flow)).request.headers
        assert headers.get_all("X-Forwarded-For") == [PEER]
        assert headers.get_all("X-Forwarded-Proto") == ["https" if is_https else "http"]
        assert headers.get_all("X-Forwarded-Host") == [HOST]


INTERNAL = [
    ("X-Comfy-Gateway-Token", "guess"),
    ("x-comfy-gateway-token", "again"),
    ("X-COMFY-GATEWAY-LEASE", "1"),
    ("X-Gateway-Site-Key", "guess"),
    ("x-gateway-SITE-key", "again"),
    ("X-Gateway-Site-User", "named:bob"),
    ("X-Gateway-Site-Refusal", "e30="),
    ("x-gateway-site-Peer", "6.6.6.6"),
]


async def test_internal_headers_of_a_client_reach_nobody(stand: Stand) -> None:
    for flow in (ask("/system_stats", headers=INTERNAL), ask("/", headers=INTERNAL)):
        names = {name.lower() for name in (await stand.arrive(flow)).request.headers}
        assert not {name for name in names if name.startswith(("x-comfy-gateway-", "x-gateway-site-"))}


async def test_the_site_hears_only_our_own_word(stand: Stand) -> None:
    flow = await stand.arrive(socket(headers=INTERNAL))
    headers = flow.request.headers
    assert headers.get_all("X-Gateway-Site-Key") == [BLOT]
    assert hidden(flow.request) == {"X-Gateway-Site-Key": SITE_KEY}
    assert headers.get_all("X-Gateway-Site-User") == [ALICE.key]
    assert headers.get_all("X-Gateway-Site-Peer") == [PEER]
    assert "X-Gateway-Site-Refusal" not in headers
    assert not {name for name in headers if name.lower().startswith("x-comfy-gateway-")}


async def test_nobody_is_not_announced_to_the_site_as_somebody(stand: Stand) -> None:
    flow = await stand.arrive(ask("/gateway/healthz", user=None, headers=INTERNAL))
    assert stand.where(flow) == "site /gateway/healthz"
    assert "X-Gateway-Site-User" not in flow.request.headers


async def test_the_token_goes_to_its_pod_and_to_nobody_else(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)
    seen = {}
    for path in ("/system_stats", "/settings", "/ws?clientId=t", "/gateway/", "/history/1"):
        flow = await stand.arrive(socket(path) if path.startswith("/ws") else ask(path))
        seen[stand.where(flow)] = hidden(flow.request).get("X-Comfy-Gateway-Token")
    assert seen == {
        POD.id: POD.token,
        HOME.id: None,
        "site /-/relay?clientId=t": None,
        "site /gateway/": None,
        "site /-/comfy/history/1": None,
    }
    other = await stand.arrive(ask("/system_stats", user="bob"))
    assert stand.where(other) == DUTY.id
    assert "X-Comfy-Gateway-Token" not in other.request.headers
    assert hidden(other.request) == {}


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (["{ours}"], None),
        (["a=1; {ours}; b=2"], "a=1; b=2"),
        (["{ours};a=1"], "a=1"),
        (["a=1", "{ours}"], "a=1"),
        (["{ours}", "a=1", "b=2"], "a=1; b=2"),
        (["{ours}", "{ours}"], None),
        (["a=1; b=2"], "a=1; b=2"),
        ([], None),
    ],
    ids=str,
)
async def test_our_cookie_goes_no_further_and_the_others_do(
    stand: Stand, sent: list[str], left: str | None
) -> None:
    ours = cookie_of(stand, ALICE)
    headers = [("Cookie", value.format(ours=ours)) for value in sent]
    for path in ("/system_stats", "/gateway/"):
        flow = await stand.arrive(ask(path, headers=headers))
        assert flow.request.headers.get("Cookie") == left


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("http://duty.test:3000/studio/comfy/elsewhere?a=%2F", "/elsewhere?a=%2F"),
        ("http://duty.test:3000/studio/comfy", "/"),
        ("http://duty.test:3000/studio/comfy?a=1", "/?a=1"),
        ("http://duty.test:3000/studio/comfy//evil.example/", "/evil.example/"),
        ("http://duty.test:3000/studio/comfyui/x", "http://duty.test:3000/studio/comfyui/x"),
        ("/studio/comfy/elsewhere", "/elsewhere"),
        ("/other", "/other"),
        ("elsewhere", "elsewhere"),
        ("https://example.com/x", "https://example.com/x"),
        ("http://duty.test:30001/x", "http://duty.test:30001/x"),
    ],
)
async def test_a_redirect_of_the_server_names_our_address(stand: Stand, location: str, told: str) -> None:
    flow = await stand.exchange(ask("/custom/x"), http.Response.make(302, b"", {"Location": location}))
    assert flow.response is not None
    assert flow.response.headers["Location"] == told


async def test_a_port_that_only_begins_like_the_servers_is_another_server(stand: Stand) -> None:
    location = "http://home.test:30001/x"
    flow = await stand.exchange(ask("/"), http.Response.make(302, b"", {"Location": location}))
    assert flow.response is not None
    assert flow.response.headers["Location"] == location
