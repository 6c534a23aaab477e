"""Pods that die under the feet of their users, and requests that try to reach somebody else's."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from comfy_gateway.hooks.secret_headers import BLOT
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture


async def on_a_pod(person: Person) -> None:
    for _ in range(5):
        await person.prompt()
    await eventually(person.is_ready, f"{person.name} is on a pod")


def shows_pod(event: dict[str, Any]) -> bool:
    """Whether a picture of a pod is told."""
    return bool(event["data"]["output"]["images"][0]["subfolder"].startswith("private-"))


async def test_prompts_that_went_down_with_their_pod_end_on_the_shared_server(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    recorded = tmp_path / "flows"
    async with start_gateway("-w", str(recorded), **cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url, client_id="tab")
        async with alice.socket() as events:
            await on_a_pod(alice)
            await alice.get("/system_stats")
            await alice.prompt(picture(7))
            made = await events.until(
                lambda event: event["type"] == "executed" and shows_pod(event), "a picture"
            )
            view = f"/view?{urlencode(made['data']['output']['images'][0])}"
            await eventually(lambda: any((tmp_path / "vault").rglob("ComfyUI_*.png")), "it is in the vault")
            sent = [await (await alice.prompt(picture(n, sleep_s=2))).json() for n in range(3)]
            [pod] = cloud.sim.living()
            cloud.sim.vanish(pod.id)
            assert not gateway.lines_with("ready -> terminating")
            shown = await alice.get(view)
            assert (shown.status, shown.headers["X-Comfy-Session-Source"]) == (200, "gateway")
            await gateway.wait_for_line("ready -> terminating")
            for prompt in sent:
                assert await events.ended(prompt["prompt_id"]) == "execution_success"
        assert {prompt["prompt_id"] for prompt in duty.sim.accepted[-3:]} == {
            prompt["prompt_id"] for prompt in sent
        }
    flows = recorded.read_bytes()
    assert BLOT.encode() in flows
    for name in ("GATEWAY_POD_TOKEN", "AUTH_TOKEN"):
        assert pod.env[name].encode() not in flows, "what is recorded opens no pod"


async def test_a_pod_whose_comfyui_died_under_a_prompt_does_not_cost_money_for_ever(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    settings = cloud.settings(duty, RUNPOD_IDLE_TIMEOUT_S="2", RUNPOD_TELEMETRY_IDLE_S="2")
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url, client_id="tab")
        async with alice.socket() as events:
            await on_a_pod(alice)
            prompt = await (await alice.prompt(picture(9, sleep_s=3))).json()
            [pod] = cloud.sim.living()
            pod.app_dead = True
            cloud.sim.hosting.cut(pod, cloud.sim.comfy_port)
            assert await events.ended(prompt["prompt_id"]) == "execution_success"
            assert duty.sim.accepted[-1]["prompt_id"] == prompt["prompt_id"]
            await eventually(lambda: not cloud.sim.living(), "the pod that serves nobody is gone")


@pytest.mark.parametrize(
    "line",
    ["GET http://127.0.0.1:{pod}/system_stats HTTP/1.1", "GET /system_stats HTTP/1.1"],
    ids=["absolute", "origin"],
)
async def test_users_who_take_turns_on_one_connection_never_get_each_others_server(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, line: str
) -> None:
    async with start_gateway(**cloud.settings(duty, REQUIRE_USER_ID="0")) as gateway:
        await on_a_pod(Person(http, gateway.url))
        turns = ["alice", "bob", None, "alice", "bob", None, "alice"]
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        target = line.format(pod=cloud.served.port)
        lies = (
            "X-Comfy-Session-User: alice\r\nX-Comfy-Session-Source: private\r\n"
            "X-Gateway-Site-User: named:alice\r\n"
        )
        for user in turns:
            named = f"X-Comfy-User: {user}\r\n" if user else ""
            writer.write(f"{target}\r\nHost: {host}:{cloud.served.port}\r\n{named}{lies}\r\n".encode())
        await writer.drain()
        received, sources = b"", list[str]()
        async with asyncio.timeout(10):
            while len(sources) < len(turns):
                received += await reader.read(65536)
                sources = re.findall(r"(?i)x-comfy-session-source: (\w+)", received.decode("latin-1"))
        writer.close()
        assert sources == ["private" if user == "alice" else "duty" for user in turns]


async def test_request_lines_that_no_client_writes_reach_no_server_and_learn_no_address(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await on_a_pod(alice)
        [pod] = cloud.sim.living()
        host, port = gateway.url.removeprefix("http://").split(":")
        for line in (
            b"PRI /system_stats HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"G\xffT /system_stats HTTP/1.1",
            b"get /system_stats HTTP/1.1",
            b"GET /system_stats HTTP/3.0",
            b"CONNECT 127.0.0.1:%d HTTP/1.1" % cloud.served.port,
            b"GET ftp://127.0.0.1/ HTTP/1.1",
            b"GET @127.0.0.1/ HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(line + b"\r\nHost: localhost\r\nX-Comfy-User: alice\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(10):
                received = await reader.read()
            writer.close()
            assert re.match(rb"HTTP/1.1 40\d|$", received), (line, received)
            for secret in (pod.id, str(cloud.served.port), duty.url.rsplit(":", 1)[1].strip("/"), "private"):
                assert secret.encode() not in received, (line, received)
        assert not gateway.lines_with("Traceback")
