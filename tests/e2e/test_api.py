"""The API through mitmproxy: a process, the real SDK and a simulated RunPod."""

import asyncio
import subprocess

import aiohttp
import orjson
import pytest

from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually
from tests.programs import require_program

API = "/gateway/api/v1"

pytestmark = pytest.mark.long


async def test_a_life_by_orders_is_heard_on_the_stream_and_seen_in_the_metrics(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    settings = cloud.settings(duty, ME_MAY_PROMOTE="1", RUNPOD_TELEMETRY_POLL_S="0.3")
    async with start_gateway(**settings) as gateway:
        alice = {"X-Comfy-User": "alice"}
        boss = {"X-Comfy-User": "boss"}

        async def order(name: str, **headers: str) -> int:
            async with http.post(f"{gateway.url}{API}/me/{name}", headers=alice | headers) as answer:
                await answer.read()
                return answer.status

        async with http.get(f"{gateway.url}{API}/stream", headers=boss) as stream:
            assert (stream.status, stream.content_type) == (200, "text/event-stream")
            async with asyncio.timeout(20):
                assert (await stream.content.readuntil(b"\n\n")).startswith(b"event: first\n")
            assert await order("promote", Origin="http://evil.example") == 403
            assert await order("promote") == 200
            states: list[str] = []
            async with asyncio.timeout(60):
                while "ready" not in states:
                    event = await stream.content.readuntil(b"\n\n")
                    if event.startswith(b"event: changes\n"):
                        told = orjson.loads(event.split(b"data: ", 1)[1])
                        states += [one["state"] for one in told if "state" in one]
        person = Person(http, gateway.url, name="alice")
        assert await person.is_ready()
        async with http.get(f"{gateway.url}{API}/sessions", headers=boss) as answer:
            (session,) = (await answer.json())["sessions"]
            assert (session["user"], session["state"]) == ("alice", "ready")
        assert await order("give-back") == 200
        await eventually(lambda: not cloud.sim.living(), "the pod is gone")
        async with http.get(f"{gateway.url}/gateway/metrics") as answer:
            text = await answer.text()
        assert 'comfy_gateway_cloud_calls_total{call="create",outcome="ok"} 1.0' in text
        assert "comfy_gateway_boot_seconds_count 1.0" in text
        assert 'comfy_gateway_request_seconds_count{kind="reserved"}' in text
        assert "alice" not in text
        checked = subprocess.run(
            [require_program("promtool"), "check", "metrics"],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
