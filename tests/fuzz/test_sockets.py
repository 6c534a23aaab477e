"""Generated requests over sockets: nobody breaks the gateway, sees another's work, or passes it without identity."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import pytest
from yarl import URL

from comfy_gateway.core.requests.classify import PathRefused, classify, needs_identity
from simulators.comfyui import ComfySimulator, serve
from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.world import picture
from tests.fuzz.parsers import SEEDS, mutated

QUICK_CASES = 2_000
LONG_CASES = 100_000
QUICK_SOCKETS = 100
"""With ten frames each, in the middle."""
LONG_SOCKETS = 10_000
WORKERS = 4
MARKER = "alicesmarkedwork"
PATHS = [
    b"/prompt", b"/queue", b"/history", b"/interrupt", b"/api/jobs", b"/view?filename=a.png", b"/object_info",
    b"/userdata?dir=.", b"/ws?clientId=alices-tab", b"/gateway/metrics", b"/assets/x.js", b"/free", b"/upload/image",
    b"/history/x", b"/-/comfy/history", b"//queue", b"/%71ueue", b"http://evil/queue",
]  # fmt: skip


def request_of(seed: int) -> tuple[bytes, bytes]:
    """One request, and who sends it: mallory or nobody."""
    choose = Random(seed)
    who = choose.choice([b"mallory", b"nobody"])
    path = choose.choice(PATHS)
    if choose.randrange(3) == 0:
        path += mutated(choose).replace(b" ", b"+").replace(b"\r", b"").replace(b"\n", b"")[:200]
    body = mutated(choose) if choose.randrange(2) else b""
    if who == b"nobody":  # and says no name in any other way either
        path, body = path.replace(b"user_id", b"nouser"), body.replace(b"client_id", b"noclient")
    method = choose.choice([b"GET", b"POST", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"get", b"PRI"])
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: 127.0.0.1", b"X-Fuzz: " + who]
    if who == b"mallory":
        lines.append(b"X-Comfy-User: mallory")
    if choose.randrange(4) == 0:
        lines.append(b"X-Odd: " + choose.choice(SEEDS)[:60].split(b"\r")[0].split(b"\n")[0])
    lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body, who


async def answer_to(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[bytes, bool]:
    """Head and body, and whether the connection goes on."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    body = b""
    if head.startswith(b"HTTP/1.1 1") or b"upgrade" in fields:
        return head, False
    if request.startswith(b"HEAD "):
        return head, fields.get(b"connection") != b"close"
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    return head + body, fields.get(b"connection") != b"close"


async def play(gateway: GatewayProcess, seeds: list[int]) -> None:
    url = URL(gateway.url)
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    for seed in seeds:
        request, _ = request_of(seed)
        said, goes_on = b"", False
        if connection is None:
            connection = await asyncio.open_connection(url.host, url.port)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(30):
                said, goes_on = await answer_to(*connection, request)
        if not goes_on:
            connection[1].transport.abort()
            connection = None
        told = f"FUZZ_SEED={seed}: {request[:300]!r} was answered by {said[:600]!r}"
        is_broken = b"500 " in said[:13] and b"source: gateway" in said.lower()
        assert not is_broken, told
        assert b"gateway_error" not in said, told
        assert b"Traceback" not in said, told
        assert MARKER.encode() not in said, told
    if connection is not None:
        connection[1].transport.abort()


HANDSHAKE = (
    b" HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Comfy-User: mallory\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)
MESSAGES = [
    b'{"type":"feature_flags","data":{"supports_preview_metadata":true}}', b'{"type":"feature_flags","data":[]}',
    b'{"type":1}', b"{}", b"[]", b"null", b'{"type":"status","data":{"sid":"alices-tab"}}',
    b'{"type":"execution_start","data":{"prompt_id":"x"}}', b"\x00\x00\x00\x01\x00\x00\x00\x02", b"\xff\xfe",
]  # fmt: skip


def frame_of(choose: Random) -> bytes:
    """One frame of a client, whole, broken or none at all."""
    payload = choose.choice(MESSAGES)
    if choose.randrange(3) == 0:
        payload = mutated(choose)[:70_000]
    opcode = choose.choice([1, 1, 1, 2, 2, 0, 9, 10, 8, choose.randrange(16)])
    first = (0x80 if choose.randrange(5) else 0) | (0x40 if choose.randrange(40) == 0 else 0) | opcode
    if opcode == 8 and choose.randrange(2):
        payload = choose.choice([1000, 1001, 1005, 1015, 4999, 0]).to_bytes(2, "big") + payload[:100]
    told = len(payload) if choose.randrange(30) else choose.randrange(1 << 16)
    mask = choose.choice([bytes(4), choose.randbytes(4)])
    size = (
        bytes([0x80 | told])
        if told < 126
        else b"\xfe" + told.to_bytes(2, "big")
        if told < 1 << 16
        else b"\xff" + told.to_bytes(8, "big")
    )
    if choose.randrange(40) == 0:
        return mutated(choose)[:100]
    if choose.randrange(40) == 0:  # as only a server may
        return bytes([first, size[0] & 0x7F]) + size[1:] + payload
    return bytes([first]) + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def play_frames(gateway: GatewayProcess, seeds: list[int]) -> None:
    url = URL(gateway.url)
    for seed in seeds:
        choose = Random(seed)
        path = choose.choice(
            [b"/ws?clientId=alices-tab", b"/ws", b"/api/ws?clientId=mallorys", b"/ws?clientId="]
        )
        extra = choose.choice([b"", b"", b"Sec-WebSocket-Extensions: permessage-deflate\r\n"])
        reader, writer = await asyncio.open_connection(url.host, url.port)
        said = b""
        try:
            async with asyncio.timeout(30):
                writer.write(b"GET " + path + HANDSHAKE + extra + b"\r\n")
                said = await reader.readuntil(b"\r\n\r\n")
                assert b" 101 " in said, f"FUZZ_SEED={seed}: {said!r}"
                with contextlib.suppress(
                    OSError
                ):  # closed already: a ConnectionError, or ENOTCONN from write_eof
                    for _ in range(choose.randrange(1, 20)):
                        writer.write(frame_of(choose))
                    # What is not closed by what was sent is closed by a second frame that is no server's.
                    writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe8" * 2 + b"\x7f" * 200_000)
                    writer.write_eof()
                    said += await reader.read(-1)
        finally:
            writer.transport.abort()
        assert MARKER.encode() not in said, f"FUZZ_SEED={seed}: {said[:600]!r}"
        assert b"Traceback" not in said, f"FUZZ_SEED={seed}: {said[:600]!r}"


@asynccontextmanager
async def alices_world(confdir: Path, state: Path) -> AsyncIterator[tuple[GatewayProcess, ComfySimulator]]:
    """A gateway before a server on which alice has marked work."""
    simulator = ComfySimulator(name="duty")
    settings = {"ISOLATION": "full"}
    async with (
        serve(simulator) as served,
        running_gateway(
            {"DUTY_POD_URL": served.url, **settings}, state_dir=state, confdir=confdir
        ) as gateway,
        aiohttp.ClientSession(headers={"X-Comfy-User": "alice"}) as http,
    ):
        nodes = picture(1)
        nodes["9"]["inputs"]["filename_prefix"] = MARKER
        prompt = {"prompt": nodes, "client_id": "alices-tab"}
        async with http.post(f"{gateway.url}/prompt", json=prompt) as answer:
            assert answer.status == 200
        yield gateway, simulator
        # The marked work was there to be found all the time.
        async with http.get(f"{gateway.url}/history") as answer:
            assert MARKER in await answer.text()
        assert "Traceback" not in gateway.log


async def fuzz_frames(confdir: Path, state: Path, sockets: int) -> None:
    seeds = [int(os.environ["FUZZ_SEED"])] if "FUZZ_SEED" in os.environ else list(range(sockets))
    async with alices_world(confdir, state) as (gateway, _), asyncio.TaskGroup() as group:
        for worker in range(WORKERS):
            group.create_task(play_frames(gateway, seeds[worker::WORKERS]))


async def fuzz(confdir: Path, state: Path, cases: int) -> None:
    seeds = [int(os.environ["FUZZ_SEED"])] if "FUZZ_SEED" in os.environ else list(range(cases))
    async with alices_world(confdir, state) as (gateway, simulator):
        for start in range(0, len(seeds), 400):
            batch = seeds[start : start + 400]
            simulator.requests.clear()
            async with asyncio.TaskGroup() as group:
                for worker in range(WORKERS):
                    group.create_task(play(gateway, batch[worker::WORKERS]))
            for seen in simulator.requests:
                if seen.headers.get("X-Fuzz") == "nobody" and seen.method != "OPTIONS":
                    try:
                        is_private = needs_identity(classify(seen.method, seen.path), seen.path)
                    except PathRefused:
                        is_private = True
                    assert not is_private, f"passed on without identity: {seen.method} {seen.path}"


@pytest.fixture(scope="module")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mitmproxy")


async def test_no_generated_request_breaks_the_gateway_or_shows_anothers_work(
    confdir: Path, tmp_path: Path
) -> None:
    await fuzz(confdir, tmp_path, QUICK_CASES)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_no_request_of_a_hundred_thousand_does_either(confdir: Path, tmp_path: Path) -> None:
    await fuzz(confdir, tmp_path, LONG_CASES)


async def test_no_generated_frame_breaks_the_gateway_or_shows_anothers_work(
    confdir: Path, tmp_path: Path
) -> None:
    await fuzz_frames(confdir, tmp_path, QUICK_SOCKETS)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_no_frame_on_ten_thousand_sockets_does_either(confdir: Path, tmp_path: Path) -> None:
    await fuzz_frames(confdir, tmp_path, LONG_SOCKETS)
