"""The gateway as a plain front, with real processes and sockets: routing, identity, refusals."""

import asyncio
import contextlib
import gc
import io
import socket
from collections import Counter
from typing import Any

import aiohttp
import psutil
import pytest
from yarl import URL

from simulators.comfyui import ComfySimulator, serve
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture


async def test_without_credentials_it_passes_everything_to_duty(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        alice = Person(http, gateway.url)
        for _ in range(6):
            answer = await alice.prompt()
            assert answer.status == 200
            assert answer.headers["X-Comfy-Prompt-Id"] == (await answer.json())["prompt_id"]
            assert answer.headers["X-Comfy-Session-Source"] == "duty"
            assert answer.headers["X-Comfy-Session-Ready"] == "0"
            assert answer.headers["X-Comfy-Session-User"] == "alice"
        assert len(duty.sim.accepted) == 6
        assert await gateway.stop() == 0
    assert "RunPod session" not in gateway.log


async def test_a_request_without_identity_is_refused_and_told_how_to_name_itself(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
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
    duty: Duty, start_gateway: StartGateway
) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        start_gateway(DUTY_POD_URL=duty.url) as gateway,
        aiohttp.ClientSession(cookie_jar=jar) as browser,
    ):
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


async def test_paths_reach_comfyui_byte_for_byte_behind_a_prefix(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    simulator = ComfySimulator(name="duty")
    async with serve(simulator, prefix="/studio/comfy") as served:
        async with start_gateway(DUTY_POD_URL=served.url) as gateway:
            path = "/api/userdata/workflows%2Fa%20b%2Bc.json?overwrite=true&full_info=%7E"
            url = URL(f"{gateway.url}{path}", encoded=True)
            async with http.post(url, data=b"{}", headers={"X-Comfy-User": "alice"}) as answer:
                assert answer.status == 200, await answer.text()
        raw_paths = [seen.path for seen in simulator.requests]
        assert any(seen.endswith(path) for seen in raw_paths), raw_paths


async def test_headers_of_one_hop_stay_on_that_hop_and_the_client_is_announced(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
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
        headers = {name.lower(): value for name, value in duty.sim.requests[-1].headers.items()}
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
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession, origin: str, status: int
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
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
    duty: Duty, start_gateway: StartGateway, header: bytes, status: bytes
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        head = b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Comfy-User: alice\r\n" + header
        # Not one byte of the body is ever sent: an answer can only come from one who does not wait for it.
        answer = await _raw(gateway.url, head + (b"\r\n\r\n" if header else b"\r\n"))
        assert answer.split(b" ")[1] == status
        assert duty.sim.accepted == []


async def test_a_dead_server_is_a_502_that_names_no_address(
    start_gateway: StartGateway, http: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    async with start_gateway(DUTY_POD_URL=f"http://127.0.0.1:{unused_tcp_port}") as gateway:
        alice = Person(http, gateway.url)
        for answer in (await alice.get("/queue"), await alice.prompt()):
            assert answer.status == 502
            assert answer.content_type == "application/json"
            body = await answer.text()
            assert "127.0.0.1" not in body
            assert str(unused_tcp_port) not in body
        with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
            async with alice.socket():
                pass
        assert handshake.value.status == 502
        assert (await alice.get("/gateway/healthz")).status == 200
        assert (await alice.get("/gateway/readyz")).status == 503


async def test_a_server_that_answers_late_is_a_504(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    duty.sim.mood.delay_s = 30
    async with start_gateway(DUTY_POD_URL=duty.url, GATEWAY_UPSTREAM_TIMEOUT_S="0.5") as gateway:
        answer = await Person(http, gateway.url).get("/queue")
        assert answer.status == 504
        assert (await answer.json())["error"]["type"] == "upstream_timeout"
        duty.sim.mood.delay_s = 0
        assert (await Person(http, gateway.url).get("/queue")).status == 200


async def test_a_server_that_takes_no_connection_is_a_504(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with contextlib.ExitStack() as waiting:
            # Nobody accepts: once the backlog is full the kernel lets further connects hang.
            for _ in range(4):
                filler = waiting.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            settings = {"DUTY_POD_URL": f"http://127.0.0.1:{port}", "GATEWAY_CONNECT_TIMEOUT_S": "0.5"}
            async with start_gateway(**settings) as gateway:
                answer = await Person(http, gateway.url).get("/system_stats")
                assert answer.status == 504
                assert (await answer.json())["error"]["type"] == "upstream_timeout"


async def test_the_unmodified_script_client_works_when_no_id_is_required(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url, REQUIRE_USER_ID="0") as gateway:
        script = Person(http, gateway.url, name=None, client_id="script-1")
        async with script.socket() as events:
            accepted = await (await script.prompt()).json()
            assert await events.ended(accepted["prompt_id"]) == "execution_success"
        history = await (await script.get(f"/history/{accepted['prompt_id']}")).json()
        [image] = history[accepted["prompt_id"]]["outputs"]["9"]["images"]
        query = {name: image[name] for name in ("filename", "subfolder", "type")}
        async with http.get(f"{gateway.url}/view", params=query) as view:
            assert view.status == 200
            assert (await view.read()).startswith(b"\x89PNG")


async def test_users_of_a_pool_stick_to_a_server_and_leave_a_dead_one(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    servers = [ComfySimulator(name=f"duty-{number}") for number in range(2)]
    async with (
        serve(servers[0]) as first,
        serve(servers[1]) as second,
        start_gateway(DUTY_POD_URL=f"{first.url},{second.url}") as gateway,
    ):
        people = [Person(http, gateway.url, name=f"user{number}") for number in range(6)]
        for _ in range(2):
            for person in people:
                assert (await person.prompt()).status == 200
        # Each user's prompts bear one client_id of their own.
        users_at = [Counter(prompt["client_id"] for prompt in server.accepted) for server in servers]
        assert all(users_at), "nobody was put on one of the servers"
        assert sorted((users_at[0] + users_at[1]).values()) == [2] * 6
        assert not set(users_at[0]) & set(users_at[1])

        before = len(servers[0].accepted)
        servers[1].mood.dead = True
        await gateway.wait_for_line("duty server duty-1 does not answer", within_s=30)
        for person in people:
            assert (await person.prompt()).status == 200
        assert len(servers[0].accepted) == before + 6


async def test_a_foreign_body_is_streamed_both_ways_with_flat_memory(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    size_bytes = 90 * 1024 * 1024
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
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
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
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
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
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
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        alice = Person(http, gateway.url, client_id="tab")
        async with alice.socket():
            assert (await alice.prompt()).status == 200
            text = await (await alice.get("/gateway/metrics")).text()
    assert 'comfy_gateway_prompts_accepted_total{source="duty"} 1.0' in text
    assert "comfy_gateway_relay_client_sockets 1.0" in text
    assert "alice" not in text
