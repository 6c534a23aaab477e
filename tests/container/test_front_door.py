"""The front door as nginx really runs it: who gets in, and that everything passes as it came."""

import asyncio
import hashlib
import io
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from tests.conditions import wait_for
from tests.container.pod import ECHO, GUARDED, NO_AGENT, TOKEN, TOKEN_HEADER, PodProcess, running_pod

MIB = 1 << 20
UPLOAD_BYTES = 150 * MIB


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcess]:
    # The agent asks ComfyUI too, and would be counted.
    with running_pod(tmp_path_factory.mktemp("pod"), COMFYUI_COMMAND=ECHO, AGENT_COMMAND=NO_AGENT) as pod:
        yield pod


@pytest.fixture(scope="module")
def strict_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcess]:
    """Small limits, and the simulated ComfyUI with its loopback rule."""
    folder = tmp_path_factory.mktemp("strict")
    with running_pod(folder, FRONT_DOOR_MAX_BODY="1m", FRONT_DOOR_SILENCE="1s") as pod:
        yield pod


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


async def seen(client: aiohttp.ClientSession, pod: PodProcess) -> int:
    """How many requests have reached ComfyUI, asked past the door."""
    async with client.get(f"{pod.comfyui_url}/_seen") as answer:
        count: int = await answer.json()
        return count


STRANGERS: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {TOKEN_HEADER: ""},
    "wrong": {TOKEN_HEADER: "x" * len(TOKEN)},
    "one character short": {TOKEN_HEADER: TOKEN[:-1]},
    "one character more": {TOKEN_HEADER: TOKEN + "0"},
    "other case": {TOKEN_HEADER: TOKEN.upper()},
    "as bearer": {"Authorization": f"Bearer {TOKEN}"},
    "as cookie": {"Cookie": f"{TOKEN_HEADER}={TOKEN}"},
    "underscores": {"X_Comfy_Gateway_Token": TOKEN},
    "long": {TOKEN_HEADER: TOKEN * 100},
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_gets_401_and_nothing_reaches_comfyui(
    pod: PodProcess, client: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    before = await seen(client, pod)
    for method, path in (
        ("GET", "/"),
        ("POST", "/prompt"),
        ("GET", f"/queue?token={TOKEN}"),
        ("OPTIONS", "/"),
        ("GET", "//ws"),
    ):
        async with client.request(method, pod.door_url + path, headers=headers, data=b"x") as answer:
            assert answer.status == 401
            assert answer.content_type == "application/json"
            assert "error" in await answer.json()
            assert answer.headers["Server"] == "nginx"  # and no version
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(f"{pod.door_url}/ws?clientId=a", headers=headers)
    assert refused.value.status == 401
    assert await seen(client, pod) == before


async def test_a_stranger_cannot_ask_past_the_door_for_another_host(pod: PodProcess) -> None:
    """Absolute addresses, other methods and two requests in one stream are judged like all others."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(pod.env["FRONT_DOOR_PORT"]))
    ours = f"{TOKEN_HEADER}: {TOKEN}\r\n"
    writer.write(
        f"GET http://127.0.0.1:{pod.env['COMFYUI_PORT']}/queue HTTP/1.1\r\nHost: a\r\n\r\n"
        f"GET /first HTTP/1.1\r\nHost: a\r\n{ours}\r\n"
        f"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        answers = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert re.findall(r"HTTP/1\.1 (\d+)", answers) == ["401", "200", "401"]


@pytest.mark.parametrize(
    "path",
    [
        "/userdata/workflows%2Fmine%20%C3%A9.json?overwrite=true&full_info=a%2Fb",
        "/api/view?filename=a+b%2B%26.png&subfolder=x%5Cy&type=output",
        "//double//slash/./and/%2e%2e/dots",
        "/semi;colon=1,2/~tilde!$&'()*+,=:@",
        "/q?",
        "/%E2%82%AC?%E2%82%AC=%00",
    ],
)
async def test_the_path_arrives_as_it_was_written(pod: PodProcess, path: str) -> None:
    """aiohttp would tidy it up: written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(pod.env["FRONT_DOOR_PORT"]))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{TOKEN_HEADER}: {TOKEN}\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        head, body = (await reader.read()).split(b"\r\n\r\n", 1)
    writer.close()
    await writer.wait_closed()
    assert b" 200 " in head.splitlines()[0]
    assert json.loads(body)["path"] == path


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_method_headers_and_body_arrive_as_they_were_sent(
    pod: PodProcess, client: aiohttp.ClientSession, method: str
) -> None:
    body = os.urandom(100_000)
    headers = {
        "Comfy-User": "anna",
        "Range": "bytes=0-1",
        "Cookie": "a=b",
        "Authorization": "Bearer own",
        "X-Odd": "é~",
    }
    async with client.request(
        method, f"{pod.door_url}/x", headers={**headers, **GUARDED}, data=body
    ) as answer:
        told = await answer.json()
    assert told["method"] == method
    assert told["sha256"] == hashlib.sha256(body).hexdigest()
    arrived = dict(told["headers"])
    assert {name: arrived[name] for name in headers} == headers
    assert arrived["Content-Length"] == "100000"


async def test_token_origin_and_host_stay_at_the_door(pod: PodProcess, client: aiohttp.ClientSession) -> None:
    headers = {**GUARDED, "Host": "pod1-8188.pods.test", "Origin": "https://pod1-8188.pods.test"}
    async with client.get(f"{pod.door_url}/x", headers=headers) as answer:
        arrived = {name.lower(): value for name, value in (await answer.json())["headers"]}
    assert arrived["host"] == f"127.0.0.1:{pod.env['COMFYUI_PORT']}"
    assert "origin" not in arrived
    assert TOKEN_HEADER.lower() not in arrived
    assert TOKEN not in str(arrived)


async def test_a_page_behind_the_gateway_is_not_refused_by_comfyui(
    strict_pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    headers = {**GUARDED, "Host": "pod1-8188.pods.test", "Origin": "https://pod1-8188.pods.test"}
    async with client.get(f"{strict_pod.door_url}/queue", headers=headers) as answer:
        assert answer.status == 200


async def test_answers_come_as_comfyui_gave_them(pod: PodProcess, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{pod.door_url}/bytes?n=1000000", headers=GUARDED) as answer:
        assert await answer.read() == b"\x00\xff" * 500_000
        assert answer.headers["X-Kept"] == "as it is"
        assert answer.headers["Content-Length"] == "1000000"


async def test_a_redirect_does_not_name_the_inner_address(
    pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{pod.door_url}/redirect", headers=GUARDED, allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/elsewhere?a=b"


async def test_a_body_of_unknown_length_passes(pod: PodProcess, client: aiohttp.ClientSession) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"part" * 1000

    async with client.post(f"{pod.door_url}/x", headers=GUARDED, data=parts()) as answer:
        told = await answer.json()
    assert told["size_bytes"] == 40_000
    assert dict(told["headers"])["Transfer-Encoding"] == "chunked"


async def test_a_socket_carries_text_and_pictures_both_ways(
    pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    picture = os.urandom(3 * MIB)
    async with client.ws_connect(
        f"{pod.door_url}/ws?clientId=a%2Fb", headers=GUARDED, max_msg_size=0
    ) as socket:
        await socket.send_str("größe")
        assert await socket.receive_str(timeout=10) == "größe"
        await socket.send_bytes(picture)
        assert await socket.receive_bytes(timeout=10) == picture


def rss_bytes(pod: PodProcess) -> int:
    return sum(process.memory_info().rss for process in pod.running("nginx: "))


async def test_an_upload_of_150_mb_streams_through_flat_memory(
    pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    block = os.urandom(MIB)
    before, peak = rss_bytes(pod), 0

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal peak
        for number in range(UPLOAD_BYTES // MIB):
            if number % 25 == 24:
                peak = max(peak, await asyncio.to_thread(rss_bytes, pod))
            yield block

    headers = {**GUARDED, "Content-Length": str(UPLOAD_BYTES)}
    async with client.post(f"{pod.door_url}/upload/image", headers=headers, data=blocks()) as answer:
        told = await answer.json()
    assert told["size_bytes"] == UPLOAD_BYTES
    assert told["sha256"] == hashlib.sha256(block * (UPLOAD_BYTES // MIB)).hexdigest()
    assert 0 < before <= peak < before + 10 * MIB
    # And it was not put down on the way.
    body_folder = Path(pod.env["RUN_DIR"], "front_door/body")
    assert not list(body_folder.rglob("*"))


async def test_comfyui_hears_of_an_upload_before_its_end(
    pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    before = await seen(client, pod)
    arrived = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        async with asyncio.timeout(10):
            await arrived.wait()
        yield b"y"

    async def post() -> Any:
        async with client.post(f"{pod.door_url}/x", headers=GUARDED, data=slow()) as answer:
            return await answer.json()

    upload = asyncio.get_running_loop().create_task(post())

    async def reached() -> bool:
        return await seen(client, pod) > before

    await wait_for(reached, "the request at ComfyUI")
    arrived.set()
    assert (await upload)["size_bytes"] == 100_001


async def test_a_body_over_the_limit_is_413(strict_pod: PodProcess, client: aiohttp.ClientSession) -> None:
    async with client.post(
        f"{strict_pod.door_url}/prompt", headers=GUARDED, data=io.BytesIO(b" " * (MIB + 1))
    ) as answer:
        assert answer.status == 413
        assert await answer.json() == {"error": "the body is larger than 1m"}


async def test_a_socket_is_cut_only_by_the_silence_that_is_set(
    strict_pod: PodProcess, pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    """1 s there, a day here: the scaled-down twin of the test of ten minutes."""
    url = yarl.URL(strict_pod.door_url) / "ws"
    async with (
        client.ws_connect(f"{pod.door_url}/ws", headers=GUARDED) as patient,
        client.ws_connect(url, headers=GUARDED) as impatient,
    ):
        await impatient.receive_str(timeout=10)  # its sid
        started = time.monotonic()
        message = await impatient.receive(timeout=10)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE)
        assert time.monotonic() - started > 0.9
        await patient.send_str("still here")
        assert await patient.receive_str(timeout=10) == "still here"
    configuration = Path(pod.env["RUN_DIR"], "front_door/nginx.conf").read_text()
    assert "proxy_read_timeout 24h;" in configuration


@pytest.mark.long
@pytest.mark.timeout(700)
async def test_a_socket_silent_for_ten_minutes_passes(pod: PodProcess, client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(f"{pod.door_url}/ws", headers=GUARDED, heartbeat=None) as socket:
        await asyncio.sleep(605)
        await socket.send_str("still here")
        assert await socket.receive_str(timeout=10) == "still here"


async def test_only_a_websocket_is_upgraded(pod: PodProcess, client: aiohttp.ClientSession) -> None:
    headers = {
        **GUARDED,
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABk",
    }
    async with client.get(f"{pod.door_url}/x", headers=headers) as answer:
        assert answer.status == 200
        arrived = dict((await answer.json())["headers"])
    assert "Upgrade" not in arrived
    assert arrived.get("Connection") == "close"


async def test_a_client_keeps_its_connection(pod: PodProcess) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:
        for _ in range(3):
            async with client.get(f"{pod.door_url}/x", headers=GUARDED) as answer:
                assert answer.headers["Connection"] == "keep-alive"
                await answer.read()


async def test_a_comfyui_that_does_not_answer_is_502_as_json(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    with running_pod(tmp_path, ready=False, COMFYUI_COMMAND="sleep 1000") as pod:
        pod.wait_for_door()
        async with client.get(f"{pod.door_url}/queue", headers=GUARDED) as answer:
            assert answer.status == 502
            assert answer.headers["Retry-After"] == "2"
            assert await answer.json() == {"error": "ComfyUI does not answer (yet)"}
        async with client.get(f"{pod.door_url}/queue") as answer:
            assert answer.status == 401


async def test_the_log_has_path_and_status_and_no_query(
    pod: PodProcess, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{pod.door_url}/view?filename=private.png", headers=GUARDED) as answer:
        await answer.read()
    pod.wait_for_line("[front_door] GET /view 200")
    assert "private.png" not in pod.log
