"""The gateway as a plain front, with real processes and sockets: routing, identity, refusals.

One gateway for all tests of this file: none of them leaves anything behind that another could meet.
"""

import asyncio
import gc
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
from yarl import URL

from simulators.comfyui import ComfySimulator, serve
from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.world import Duty, Person, eventually, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Duty]:
    simulator = ComfySimulator(name="duty")
    async with serve(simulator) as served:
        yield Duty(simulator, served.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    server: Duty, confdir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    """Without credentials and with no setting but the server's address."""
    settings = {"DUTY_POD_URL": server.url}
    async with running_gateway(
        settings, state_dir=tmp_path_factory.mktemp("front"), confdir=confdir
    ) as gateway:
        yield gateway
        assert await gateway.stop() == 0
    assert "RunPod session" not in gateway.log


@pytest.fixture
def duty(server: Duty, gateway: GatewayProcess) -> Duty:
    """The server, which remembers nothing of earlier tests."""
    server.sim.accepted.clear()
    server.sim.requests.clear()
    return server


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps no cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def test_without_credentials_it_passes_everything_to_duty(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    alice = Person(http, gateway.url)
    for _ in range(6):
        answer = await alice.prompt()
        assert answer.status == 200
        assert answer.headers["X-Comfy-Prompt-Id"] == (await answer.json())["prompt_id"]
        assert answer.headers["X-Comfy-Session-Source"] == "duty"
        assert answer.headers["X-Comfy-Session-Ready"] == "0"
        assert answer.headers["X-Comfy-Session-User"] == "alice"
    assert len(duty.sim.accepted) == 6


async def test_a_request_without_identity_is_refused_and_told_how_to_name_itself(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    nobody = Person(http, gateway.url, name=None)
    answer = await nobody.get("/queue")
    assert answer.status == 400
    message = (await answer.json())["error"]["message"]
    assert "X-Comfy-User" in message
    assert "user_id" in message

    page = await nobody.get("/", Accept="text/html")
    assert page.status == 400
    assert 'name="user_id"' in await page.text()

    refused_prompt = await nobody.prompt()
    assert refused_prompt.status == 400
    with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
        async with nobody.socket():
            pass
    assert handshake.value.status == 400

    for open_path in ("/gateway/healthz", "/gateway/metrics", "/extensions"):
        assert (await nobody.get(open_path)).status == 200
    assert duty.sim.accepted == []
    # Only the gateway's own probes and the file that needs no identity have reached the server.
    forwarded = [seen.path for seen in duty.sim.requests if "X-Forwarded-For" in seen.headers]
    assert forwarded == ["/extensions"]


async def test_a_browser_that_was_named_once_is_remembered_by_a_signed_cookie(
    duty: Duty, gateway: GatewayProcess
) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        async with browser.get(f"{gateway.url}/?user_id=bob", headers={"Accept": "text/html"}) as page:
            assert page.status == 200
            cookie = page.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
        async with browser.get(f"{gateway.url}/queue") as answer:
            assert answer.status == 200
            assert answer.headers["X-Comfy-Session-User"] == "bob"
        # Nobody else's business: neither the server nor a forged copy.
        assert all("comfy_gateway_user" not in seen.headers.get("Cookie", "") for seen in duty.sim.requests)
        forged = {"Cookie": "comfy_gateway_user=Im5hbWVkOmJvYiI.AAAA"}
        async with (
            aiohttp.ClientSession() as stranger,
            stranger.get(f"{gateway.url}/queue", headers=forged) as answer,
        ):
            assert answer.status == 400


async def test_headers_of_one_hop_stay_on_that_hop_and_the_client_is_announced(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    sent = {
        "X-Comfy-User": "alice",
        "Connection": "keep-alive, X-Private",
        "X-Private": "1",
        "TE": "trailers",
        "X-Forwarded-For": "6.6.6.6",
        "X-Comfy-Gateway-Token": "guess",
        "X-Gateway-Site-Key": "guess",
        "X-Gateway-Site-User": "named:bob",
    }
    async with http.get(f"{gateway.url}/system_stats", headers=sent) as answer:
        assert answer.status == 200
        assert answer.headers["X-Comfy-Session-User"] == "alice"
    # The gateway's own probes may have come meanwhile.
    [seen] = [seen for seen in duty.sim.requests if seen.path == "/system_stats"]
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert headers["host"] == URL(duty.url).authority
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-host"] == URL(gateway.url).authority
    assert headers["x-forwarded-proto"] == "http"
    unwanted = {"x-private", "te", "x-comfy-gateway-token", "x-gateway-site-key", "x-gateway-site-user"}
    assert not unwanted & set(headers)


@pytest.mark.parametrize(
    ("origin", "status"),
    [("ours", 200), ("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:1", 403)],
)
async def test_our_origin_is_rewritten_and_a_foreign_one_refused(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession, origin: str, status: int
) -> None:
    sent = gateway.url if origin == "ours" else origin
    headers = {"X-Comfy-User": "alice", "Origin": sent}
    async with http.post(f"{gateway.url}/prompt", json={"prompt": picture()}, headers=headers) as answer:
        assert answer.status == status
    assert len(duty.sim.accepted) == (1 if status == 200 else 0)


async def _raw(url: str, request: bytes, *, until: bytes = b"}") -> bytes:
    target = URL(url)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
            return answer + await reader.readuntil(until)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("header", "status"),
    [(b"Content-Length: 104857601", b"413"), (b"Transfer-Encoding: chunked", b"411"), (b"", b"411")],
    ids=["too large", "no length", "no body at all"],
)
async def test_a_prompt_that_must_not_be_read_is_refused_before_its_body(
    duty: Duty, gateway: GatewayProcess, header: bytes, status: bytes
) -> None:
    head = b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Comfy-User: alice\r\n" + header
    # Not one byte of the body is ever sent: an answer can only come from one who does not wait for it.
    answer = await _raw(gateway.url, head + (b"\r\n\r\n" if header else b"\r\n"))
    assert answer.split(b" ")[1] == status
    assert duty.sim.accepted == []


async def test_a_foreign_body_is_streamed_both_ways_with_flat_memory(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    size_bytes = 90 * 1024 * 1024
    alice = Person(http, gateway.url)
    await alice.get("/queue")
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    view = f"{gateway.url}/view?filename=big.bin&type=input"
    form = aiohttp.FormData()
    form.add_field(
        "image",
        io.BytesIO(bytes(size_bytes)),
        filename="big.bin",
        content_type="application/octet-stream",
    )
    async with http.post(f"{gateway.url}/upload/image", data=form, headers=alice.headers) as answer:
        assert answer.status == 200, await answer.text()
    async with http.get(view, headers=alice.headers) as answer:
        received = 0
        async for chunk in answer.content.iter_chunked(1 << 16):
            received += len(chunk)
    assert received == size_bytes
    gc.collect()
    assert process.memory_info().rss - before < 40 * 1024 * 1024


async def test_socket_frames_are_not_kept_by_mitmproxy(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    person = Person(http, gateway.url, client_id="tab")
    async with person.socket() as events:
        answer = await person.prompt(picture(sleep_s=0.3, steps=30))
        prompt_id = (await answer.json())["prompt_id"]
        assert await events.ended(prompt_id) == "execution_success"
        assert len(events.previews) == 30
        kinds: list[Any] = [event["type"] for event in events.seen]
        assert kinds[0] == "status"
        assert events.seen[0]["data"]["sid"] == "tab"
        await eventually(lambda: len(duty.sim.accepted) == 1, "one prompt")
        assert duty.sim.accepted[0]["client_id"] not in {"tab", None}


async def test_nobody_can_put_a_prompt_under_the_id_of_somebody_elses(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    prompt_id = "0b5c9f7e-7a3e-4a58-9d5c-0c7d3f5f2a11"
    statuses: list[int] = []
    for name in ("alice", "mallory", "alice"):
        body = {"prompt": picture(len(statuses)), "prompt_id": prompt_id}
        headers = {"X-Comfy-User": name}
        async with http.post(f"{gateway.url}/prompt", json=body, headers=headers) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 409, 200]
    assert len(duty.sim.accepted) == 1, "the same id runs once"


async def test_metrics_tell_prompts_sockets_and_no_names(
    duty: Duty, gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    alice = Person(http, gateway.url, client_id="tab")

    async def told(metric: str) -> float:
        text = await (await alice.get("/gateway/metrics")).text()
        assert "alice" not in text
        found = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def open_sockets_are(count: int) -> None:
        async def are() -> bool:
            return await told("comfy_gateway_relay_client_sockets") == count

        await eventually(are, f"{count} open sockets in the metrics")

    accepted = 'comfy_gateway_prompts_accepted_total{source="duty"}'
    before = await told(accepted)
    await open_sockets_are(0)
    async with alice.socket():
        assert (await alice.prompt()).status == 200
        await open_sockets_are(1)
        assert await told(accepted) == before + 1
