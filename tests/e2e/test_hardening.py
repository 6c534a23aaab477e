"""Bytes that no browser sends, over real sockets, to one gateway process."""

import asyncio
import contextlib
import io
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio
from yarl import URL

from simulators.comfyui import ComfySimulator, serve
from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.world import Duty, Person, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD = b"Host: 127.0.0.1\r\nX-Comfy-User: mallory\r\n"
UPLOAD = b"POST /userdata/a.json HTTP/1.1\r\n" + HEAD
STATE_DIR: dict[str, Path] = {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def duty() -> AsyncIterator[Duty]:
    simulator = ComfySimulator(name="duty")
    async with serve(simulator) as served:
        yield Duty(simulator, served.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    duty: Duty, confdir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    state = tmp_path_factory.mktemp("hardening")
    STATE_DIR["state"] = state
    async with running_gateway({"DUTY_POD_URL": duty.url}, state_dir=state, confdir=confdir) as gateway:
        yield gateway
    assert "Traceback" not in gateway.log
    assert "crashed" not in gateway.log


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def exchange(gateway: GatewayProcess, request: bytes, *, answers: int = 1) -> list[int]:
    """The statuses of so many answers, fewer where the connection is closed before."""
    url = URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    statuses: list[int] = []
    try:
        async with asyncio.timeout(20):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                writer.write(request)
                await writer.drain()
                while len(statuses) < answers:
                    head = await reader.readuntil(b"\r\n\r\n")
                    statuses.append(int(head.split(b" ")[1]))
                    assert b"Traceback" not in head
                    length = [line for line in head.lower().split(b"\r\n") if b"content-length:" in line]
                    if length:
                        await reader.readexactly(int(length[0].partition(b":")[2]))
    finally:
        writer.transport.abort()  # bytes that nobody reads are not waited for
    return statuses


def asked(duty: Duty) -> list[str]:
    """What came from clients, without the gateway's own probes."""
    return [seen.path for seen in duty.sim.requests if "X-Forwarded-For" in seen.headers]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (
            UPLOAD
            + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
            400,
        ),
        (UPLOAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (UPLOAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (UPLOAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (UPLOAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (UPLOAD + b"Content-Length: +4\r\n\r\nabcd", 400),
        (UPLOAD + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"X: a\r\n  Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"X: a\rX-Evil: 1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"X: a\x00b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\nHost: 127.0.0.1\n\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"Host: evil.example\r\n\r\n", 403),
        (b"GET /x HTTP/1.1\r\nHost: evil.example\r\nX-Comfy-User: a\r\n\r\n", 403),
        (b"CONNECT evil.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET ftp://evil.example:21/ HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET //gateway/ HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /%2e%2e/gateway/ HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /a/..%2fqueue HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /\\gateway HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 200_000, 431),
        (b"GET /x HTTP/1.1\r\n" + HEAD + b"X: 1\r\n" * 200 + b"\r\n", 431),
        (b"GET /x?user_id=a%0d%0aSet-Cookie:%20x=y HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Comfy-User: a\xe9\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: localhost\r\nCookie: comfy_gateway_user=a%0d%0a\r\n\r\n", 400),
        (b"GET /x\r\n\r\n", 400),
        (b"head /queue HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
    ],
)
async def test_what_could_be_read_in_two_ways_reaches_no_server(
    duty: Duty, gateway: GatewayProcess, request_bytes: bytes, status: int
) -> None:
    duty.sim.requests.clear()
    assert await exchange(gateway, request_bytes) == [status]
    assert asked(duty) == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"HEAD /a/../queue HTTP/1.1\r\n" + HEAD, 400),
        (b"HEAD /a/../queue HTTP/1.1\r\nAccept: text/html\r\n" + HEAD, 400),
        (b"HEAD /x HTTP/1.1\r\nHost: evil.example\r\n", 403),
        (b"HEAD /free HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n" + HEAD, 403),
        (b"HEAD /gateway/nowhere HTTP/1.1\r\n" + HEAD, 404),
        (b"HEAD /view?filename=no-such.png HTTP/1.1\r\n" + HEAD, 404),
        (b"HEAD /queue HTTP/1.1\r\n" + HEAD, 200),
    ],
)
async def test_an_answer_to_head_has_no_body_that_the_next_answer_would_begin_with(
    gateway: GatewayProcess, request_bytes: bytes, status: int
) -> None:
    url = URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        async with asyncio.timeout(20):
            writer.write(request_bytes + b"\r\nGET /queue HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
            heads = [await reader.readuntil(b"\r\n\r\n")]
            if b"connection: close" not in heads[0].lower():
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                assert await reader.read() != b""
            else:
                assert await reader.read() == b""
    finally:
        writer.transport.abort()
    assert [head.split(b" ")[1] for head in heads] == [str(status).encode(), b"200"][: len(heads)]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /queue HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n",
        b"GET /gateway/healthz HTTP/1.1\r\n" + HEAD + b"Connection: Close\r\n\r\n",
        b"GET /object_info HTTP/1.1\r\n" + HEAD + b"Accept-Encoding: gzip\r\nConnection: close\r\n\r\n",
        b"GET /a/../b HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n",
        b"POST /prompt HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"GET /queue HTTP/1.0\r\n" + HEAD + b"\r\n",
    ],
)
async def test_a_connection_is_closed_for_whoever_asks_for_it(
    gateway: GatewayProcess, request_bytes: bytes
) -> None:
    url = URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        async with asyncio.timeout(20):
            writer.write(request_bytes)
            assert (await reader.read()).startswith(b"HTTP/1.")
    finally:
        writer.transport.abort()


async def test_no_request_chooses_its_server(duty: Duty, gateway: GatewayProcess) -> None:
    duty.sim.requests.clear()
    for line in (b"http://169.254.169.254/system_stats", b"https://evil.example:444/system_stats"):
        request = b"GET " + line + b" HTTP/1.1\r\n" + HEAD + b"X-Forwarded-Host: evil.example\r\n\r\n"
        assert await exchange(gateway, request) == [200]
    assert asked(duty) == ["/system_stats", "/system_stats"]


async def test_a_preface_of_http_2_ends_the_connection(duty: Duty, gateway: GatewayProcess) -> None:
    duty.sim.requests.clear()
    assert await exchange(gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") in ([], [400])
    assert asked(duty) == []


async def test_trailers_and_chunk_extensions_are_dropped_and_the_connection_goes_on(
    duty: Duty, gateway: GatewayProcess
) -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX-Trailer: 1\r\n\r\n"
    again = b"GET /system_stats HTTP/1.1\r\n" + HEAD + b"\r\n"
    assert await exchange(gateway, UPLOAD + body + b"\r\n\r\n" + again, answers=2) == [200, 200]


async def test_a_chunk_line_without_end_is_cut_off(duty: Duty, gateway: GatewayProcess) -> None:
    before = psutil.Process(gateway.process.pid).memory_info().rss
    request = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * (32 << 20)
    assert await exchange(gateway, request) == []
    assert psutil.Process(gateway.process.pid).memory_info().rss - before < 24 << 20


@pytest.mark.parametrize("depth", [500, 900, 990, 1000, 1020, 2000, 100_000])
@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history", "/interrupt", "/api/jobs/cancel"])
async def test_a_deep_body_is_never_a_fault_of_ours(gateway: GatewayProcess, path: str, depth: int) -> None:
    body = (
        b'{"prompt_id":"x","delete":[],"job_ids":[],"prompt":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    )
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode() + HEAD
    [status] = await exchange(gateway, head + b"\r\n" + body)
    assert status < 500


@pytest.mark.parametrize("path", ["/queue", "/history", "/api/jobs/cancel"])
async def test_an_order_that_names_too_many_is_refused_at_once(
    gateway: GatewayProcess, http: aiohttp.ClientSession, path: str
) -> None:
    ids = [f"id-{number}" for number in range(400_000)]
    order = io.BytesIO(json.dumps({"job_ids" if "jobs" in path else "delete": ids}).encode())
    async with http.post(gateway.url + path, data=order, headers={"X-Comfy-User": "mallory"}) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["type"] == "too_many_ids"


@pytest.mark.parametrize("body", [
    b'{"client_id":"\\ud800","prompt":{"1":{"class_type":"x"}}}', b'{"prompt_id":"\\ud800","prompt":{}}',
    b'{"delete":["\\ud800"],"job_ids":["\\ud800"]}', b'{"prompt":{"1":{"class_type":"x","inputs":{"a":NaN}}}}',
    b'{"number":1e999,"prompt":{}}',
    b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"[]", b"null", b'{"prompt":{"1":[]}}'[:-1], bytes(range(256)),
])  # fmt: skip
@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history", "/interrupt", "/api/jobs/cancel"])
async def test_an_odd_body_is_never_a_fault_of_ours(gateway: GatewayProcess, path: str, body: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode() + HEAD
    [status] = await exchange(gateway, head + b"\r\n" + body)
    assert status < 500


async def test_a_stranger_with_somebodys_client_id_hears_nothing_of_theirs(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    alice = Person(http, gateway.url, "alice", client_id="alices-tab")
    nobody = Person(http, gateway.url, None, client_id="alices-tab")
    async with alice.socket() as hers, nobody.socket() as strangers:
        prompt_id = (await (await alice.prompt(picture(7))).json())["prompt_id"]
        assert await hers.ended(prompt_id) == "execution_success"
        own_id = (await (await nobody.prompt(picture(8))).json())["prompt_id"]
        assert await strangers.ended(own_id) == "execution_success"
        assert prompt_id not in json.dumps(strangers.seen)
        assert own_id not in json.dumps(hers.seen)


async def test_a_message_larger_than_comfyui_takes_ends_its_socket(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    async with Person(http, gateway.url, "mallory", client_id="flood").socket() as events:
        with contextlib.suppress(ConnectionError):
            await events.socket.send_bytes(bytes(5 << 20))
        async with asyncio.timeout(20):
            while (await events.socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                pass
        assert events.socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_closing_frame_with_much_behind_it_ends_its_connection(gateway: GatewayProcess) -> None:
    """mitmproxy forgot such a connection without closing it."""
    url = URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"GET /ws?clientId=behind HTTP/1.1\r\n" + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    try:
        async with asyncio.timeout(30):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe8" + bytes(200_000))
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 16):
                    pass
    finally:
        writer.transport.abort()


async def test_a_flood_of_messages_ends_its_socket(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    async with Person(http, gateway.url, "mallory", client_id="many").socket() as events:
        with contextlib.suppress(ConnectionError):
            for _ in range(2_000):
                await events.socket.send_str("{}")
        async with asyncio.timeout(20):
            while (await events.socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                pass
        assert events.socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_message_in_endless_parts_ends_its_socket_and_costs_no_memory(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    before = psutil.Process(gateway.process.pid).memory_info().rss
    url = URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"GET /ws?clientId=parts HTTP/1.1\r\n" + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    try:
        async with asyncio.timeout(30):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            part = b"\xff" + (1 << 16).to_bytes(8, "big") + bytes(4) + bytes(1 << 16)
            with contextlib.suppress(ConnectionError):
                for number in range(1024):  # 64 MB, and never the last part
                    writer.write((b"\x00" if number else b"\x02") + part)
                    await writer.drain()
                while await reader.read(1 << 16):
                    pass
    finally:
        writer.transport.abort()
    assert psutil.Process(gateway.process.pid).memory_info().rss - before < 40 << 20


async def test_the_site_answers_nobody_without_its_key(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    connections = psutil.Process(gateway.process.pid).net_connections("inet")
    ports = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    [site] = ports - {URL(gateway.url).port}
    for key in ("", "guess"):
        headers = {"X-Gateway-Site-Key": key, "X-Gateway-Site-User": "named:alice"}
        for path in ("/-/comfy/queue", "/-/comfy/history", "/-/relay", "/gateway/metrics", "/-/vault"):
            async with http.get(f"http://127.0.0.1:{site}{path}", headers=headers) as answer:
                assert answer.status == 403, path


async def test_nobody_else_on_the_machine_can_read_the_state(gateway: GatewayProcess) -> None:
    folder = STATE_DIR["state"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix.startswith(".db") or "sqlite" in path.name for path in files), files
    open_ones = [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert open_ones == []
