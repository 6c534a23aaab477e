"""The promises of ``core.ports.Prober``, over real sockets."""

import asyncio
import gzip
import json
import socket
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.core.ports import Health, Prober
from comfy_gateway.core.requests.upstream import Upstream
from tests.contract.loopback import Handler, answering, saying

TOKEN = "f00dcafe" * 8
QUEUE = {
    "queue_running": [[0, "a", {}, {}, []]],
    "queue_pending": [[1, "b", {}, {}, []], [2, "c", {}, {}, []]],
}


def prober_of(session: aiohttp.ClientSession, path: str = "/queue", timeout_s: float = 5) -> Prober:
    return HttpProber(session, path, timeout_s, max_body_bytes=100_000)


async def probe_answer(
    session: aiohttp.ClientSession, response: web.Response, *, timeout_s: float = 5
) -> Health:
    async def answer(_: web.Request) -> web.Response:
        return response

    async with answering(answer) as origin:
        return await prober_of(session, timeout_s=timeout_s).probe(Upstream.parse(origin), token=TOKEN)


@pytest.mark.parametrize(
    ("body", "remaining"),
    [
        (QUEUE, 3),
        ({"queue_running": [], "queue_pending": []}, 0),
        ({"exec_info": {"queue_remaining": 7}}, 7),
        ({"exec_info": {"queue_remaining": 0}}, 0),
        ({"system": {}, "devices": []}, None),
        ({"queue_running": None, "queue_pending": []}, None),
        ({"queue_running": []}, None),
        ({"exec_info": None}, None),
        ({"exec_info": {"queue_remaining": "7"}}, None),
        ({"exec_info": {"queue_remaining": True}}, None),
        ({"exec_info": {"queue_remaining": -1}}, None),
        ([], None),
    ],
)
async def test_json_is_healthy_and_tells_the_queue_where_it_does(
    session: aiohttp.ClientSession, body: object, remaining: int | None
) -> None:
    health = await probe_answer(session, web.json_response(body))
    assert (health.is_healthy, health.queue_remaining, health.reason) == (True, remaining, "")
    assert 0 < health.seconds < 5


async def test_a_compressed_answer_is_understood(session: aiohttp.ClientSession) -> None:
    response = web.Response(
        body=gzip.compress(json.dumps(QUEUE).encode()), headers={"Content-Encoding": "gzip"}
    )
    assert (await probe_answer(session, response)).queue_remaining == 3


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (web.json_response(QUEUE, status=500), "500"),
        (web.json_response(QUEUE, status=404), "404"),
        (web.Response(status=502, text="<html>Bad Gateway</html>"), "502"),
        (web.Response(text="<html>starting</html>", content_type="text/html"), "JSON"),
        (web.Response(text="<html>starting</html>", content_type="application/json"), "JSON"),
        (web.Response(body=b""), "JSON"),
        (web.Response(status=204), "JSON"),
        (web.Response(text="[" * 50_000), "JSON"),
        (web.Response(body=b" " * 100_001), "100000"),
        (web.Response(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}), "100000"),
        (web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"}), "broke off"),
    ],
    ids=[
        "500",
        "404",
        "502 page",
        "page with 200",
        "page that claims JSON",
        "empty",
        "204",
        "deep",
        "too large",
        "bomb",
        "not gzip",
    ],
)
async def test_anything_else_is_not_healthy_and_says_why(
    session: aiohttp.ClientSession, response: web.Response, reason: str
) -> None:
    health = await probe_answer(session, response)
    assert (health.is_healthy, health.queue_remaining) == (False, None)
    assert reason in health.reason


async def test_a_redirect_is_not_followed_and_takes_the_token_nowhere(session: aiohttp.ClientSession) -> None:
    visited = []

    async def elsewhere(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.json_response(QUEUE)

    async with answering(elsewhere) as other:
        health = await probe_answer(session, web.Response(status=307, headers={"Location": f"{other}/queue"}))
    assert not health.is_healthy
    assert "307" in health.reason
    assert visited == []


async def test_the_path_follows_the_prefix_with_its_encoding_kept(session: aiohttp.ClientSession) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        return web.json_response({})

    async with answering(answer) as origin:
        await prober_of(session).probe(Upstream.parse(f"{origin}/pods/p1/"))
        await prober_of(session, "/a%2Fb?x=%41").probe(Upstream.parse(f"{origin}/pods/p1"))
        await prober_of(session, "system_stats").probe(Upstream.parse(origin))
    assert asked == ["/pods/p1/queue", "/pods/p1/a%2Fb?x=%41", "/system_stats"]


@pytest.mark.parametrize("token", [TOKEN, None])
async def test_the_token_goes_along_only_where_one_is_given(
    session: aiohttp.ClientSession, token: str | None
) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("X-Comfy-Gateway-Token"))
        return web.json_response({})

    async with answering(answer) as origin:
        await prober_of(session).probe(Upstream.parse(origin), token=token)
    assert seen == [token]


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def trickle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("handler", [never, trickle])
async def test_the_probe_is_over_at_its_own_deadline(
    session: aiohttp.ClientSession, handler: Handler
) -> None:
    async with answering(handler) as origin, asyncio.timeout(5):
        health = await prober_of(session, timeout_s=0.2).probe(Upstream.parse(origin))
    assert not health.is_healthy
    assert "within 0.2 s" in health.reason
    assert health.seconds >= 0.19


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["hangs up", "other protocol", "cut body", "bad chunk", "huge header"],
)
async def test_a_broken_server_never_raises(session: aiohttp.ClientSession, raw: bytes) -> None:
    async with saying(raw) as origin:
        health = await prober_of(session).probe(Upstream.parse(origin), token=TOKEN)
    assert not health.is_healthy
    assert health.reason


async def test_the_reason_names_no_address_and_no_token(session: aiohttp.ClientSession) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}"
    unknown = "http://no-such-host.invalid:81"
    for origin in (refused, unknown):
        health = await prober_of(session).probe(Upstream.parse(origin), token=TOKEN)
        parts = urlsplit(origin)
        assert health.reason
        assert not health.is_healthy
        for private in (str(parts.hostname), str(parts.port), TOKEN):
            assert private not in health.reason
