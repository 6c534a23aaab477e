"""/metrics, /stream, /ws, /healthz and /version, over real sockets."""

import asyncio
import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agent import __version__
from agent.clock import SystemClock
from agent.comfyui import ComfyUI
from agent.exposition import wants_prometheus
from agent.gpu import GpuReading, NvmlReader
from agent.machine import MachineReading
from agent.sampler import Sample, Sampler
from agent.source import KEEP_S, Source
from agent.telemetry_routes import TelemetryRoutes
from comfy_gateway.adapters.agent import HttpAgent
from comfy_gateway.core.life.telemetry import parse_sample
from simulators.comfyui import ComfySimulator, serve
from tests.agent.nvml import FakeGpu, FakeNvml
from tests.agent.stand import BEARER, TOKEN, Agent, AgentsFakeClock, agent_at
from tests.conditions import wait_for
from tests.contract.loopback import answering, saying

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def nvml_reader(nvml: FakeNvml) -> NvmlReader:
    return NvmlReader(SystemClock().monotonic, nvml)


async def test_a_sample_has_the_shape_of_the_contract_and_the_gateway_reads_it(home: Path) -> None:
    gpus = nvml_reader(FakeNvml([FakeGpu(percent=37)]))
    async with serve(ComfySimulator()) as comfy, agent_at(home, gpus, COMFYUI_URL=comfy.url) as agent:
        message = await agent.metrics()
        async with aiohttp.ClientSession() as session:
            as_gateway = await HttpAgent(session, 5).sample(f"{agent.url}/metrics", token=TOKEN)
    assert set(message) == {
        "timestamp", "uptime_s", "gpus", "cpu_percent", "memory_used_bytes", "memory_total_bytes", "disk_used_bytes",
        "disk_total_bytes", "comfyui", "model_sync",
    }  # fmt: skip
    assert message["gpus"] == [
        {
            "index": 0,
            "name": "NVIDIA H100",
            "utilization_percent": 37.0,
            "memory_used_bytes": 1,
            "memory_total_bytes": 2,
            "temperature_celsius": 40.0,
            "power_watts": 60.5,
        }
    ]
    assert message["comfyui"] == {"queue_running": 0, "queue_pending": 0}
    assert message["model_sync"] == {"state": "idle", "done_bytes": 0, "total_bytes": 0}
    assert abs(message["timestamp"] - SystemClock().time()) < 60
    for sample in (parse_sample(message), as_gateway):
        assert (sample.utilization_percent, sample.is_queue_empty, sample.synced_bytes) == (
            37.0,
            True,
            None,
        )


async def test_the_driver_is_let_go_at_the_end(home: Path) -> None:
    nvml = FakeNvml([FakeGpu()])
    async with agent_at(home, nvml_reader(nvml)) as agent:
        await agent.metrics()
    await wait_for(lambda: nvml.shutdowns == 1, "NVML to be shut down")


async def test_without_gpu_and_comfyui_the_gateway_learns_that_nothing_is_known(agent: Agent) -> None:
    message = await agent.metrics()
    assert (message["gpus"], message["comfyui"]) == ([], None)
    sample = parse_sample(message)
    assert (sample.utilization_percent, sample.is_queue_empty) == (None, None)


async def test_the_queue_tells_running_from_waiting(home: Path) -> None:
    simulator = ComfySimulator()
    simulator.mood.paused = True
    async with serve(simulator) as comfy, agent_at(home, COMFYUI_URL=comfy.url) as agent:
        for _ in range(3):
            async with agent.client.post(f"{comfy.url}prompt", json={"prompt": PROMPT}) as accepted:
                assert accepted.status == 200

        async def counted() -> bool:
            told = (await agent.metrics())["comfyui"]
            return bool(told == {"queue_running": 1, "queue_pending": 2})

        await wait_for(counted, "one that runs and two that wait")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>...",
        b'HTTP/1.1 503 No\r\nContent-Length: 37\r\n\r\n{"exec_info": {"queue_remaining": 0}} ',
        b'HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{"exec_info": {"queue_remaining": -1}} ',
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b" " * 200_000,
        b"nonsense\r\n\r\n",
        None,
    ],
    ids=["no count", "null", "html", "503", "negative", "too long", "no http", "silent"],
)
async def test_a_comfyui_that_gives_no_sensible_answer_is_null(home: Path, answer: bytes | None) -> None:
    async with saying(answer) as origin, agent_at(home, COMFYUI_URL=origin) as agent:
        assert (await agent.metrics())["comfyui"] is None


async def test_a_silent_comfyui_holds_no_sample_up(home: Path) -> None:
    async with saying(None) as origin, agent_at(home, COMFYUI_URL=origin, AGENT_INTERVAL_S="0.5") as agent:
        began_s = asyncio.get_running_loop().time()
        async for _, message in events(agent, 4):
            assert message["comfyui"] is None
        assert asyncio.get_running_loop().time() - began_s < 4.0


async def events(agent: Agent, count: int) -> Any:
    """(the id, the message) of the first events of a stream."""
    async with agent.client.get("/stream") as response:
        assert response.content_type == "text/event-stream"
        event_id = ""
        while count:
            line = (await response.content.readline()).decode().rstrip("\n")
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            if line.startswith("data: "):
                count -= 1
                yield event_id, json.loads(line.removeprefix("data: "))


async def test_a_stream_tells_each_sample_once_with_an_id_and_how_soon_to_come_back(agent: Agent) -> None:
    async with agent.client.get("/stream") as response:
        assert await response.content.readline() == b"retry: 3000\n"
    told = [(event_id, message["timestamp"]) async for event_id, message in events(agent, 4)]
    assert told == sorted(set(told))
    assert [event_id for event_id, _ in told] == [f"{at * 1000:.0f}" for _, at in told]


async def test_a_stream_without_news_is_kept_alive(home: Path) -> None:
    async with aiohttp.ClientSession() as session:

        async def never(number: int) -> Sample:
            return Sample(number, 0.0, 0.0)

        routes = TelemetryRoutes(
            Sampler(never, 1.0, SystemClock()), ComfyUI(session, "http://127.0.0.1:9"), heartbeat_s=0.05
        )
        async with answering(routes.stream) as origin, session.get(origin) as response:
            await response.content.readuntil(b": still here\n\n: still here\n\n")


async def test_a_hundred_listeners_cost_one_sample_each_interval(home: Path) -> None:
    asked = 0

    async def prompt(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"exec_info": {"queue_remaining": 0}})

    async with (
        answering(prompt) as comfy,
        agent_at(home, COMFYUI_URL=comfy, AGENT_INTERVAL_S="0.25") as agent,
    ):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(agent.url, headers=BEARER, connector=connector) as client:
            everybody = Agent(agent.url, client)
            before = asked

            async def listen() -> list[str]:
                return [event_id async for event_id, _ in events(everybody, 4)]

            heard = await asyncio.gather(*(listen() for _ in range(100)))
    # Each heard four samples; together they heard about as many different ones.
    assert asked - before <= len({event_id for ids in heard for event_id in ids}) + 3
    assert asked - before < 60


async def test_a_socket_tells_the_same_samples(agent: Agent) -> None:
    async with agent.client.ws_connect("/ws") as socket:
        first, second = [json.loads((await socket.receive(5)).data) for _ in range(2)]
    assert set(first) == set(await agent.metrics())
    assert second["timestamp"] > first["timestamp"]


async def test_a_socket_heeds_the_interval_that_its_client_asks_for(agent: Agent) -> None:
    async with agent.client.ws_connect("/ws") as socket:
        await socket.send_json({"interval_s": 0.5})
        times = [json.loads((await socket.receive(5)).data)["timestamp"] for _ in range(5)]
    assert times[-1] - times[-2] > 0.4


@pytest.mark.parametrize(
    "wish",
    [
        "x",
        "[]",
        "{}",
        '{"interval_s": 0.01}',
        '{"interval_s": 1e9}',
        '{"interval_s": true}',
        '{"interval_s": NaN}',
    ],
)
async def test_a_wish_out_of_bounds_is_answered_and_changes_nothing(agent: Agent, wish: str) -> None:
    async with agent.client.ws_connect("/ws") as socket:
        await socket.send_str(wish)
        told = [json.loads((await socket.receive(5)).data) for _ in range(4)]
    assert sum("error" in message for message in told) == 1


async def test_a_socket_with_a_huge_message_is_closed_and_the_agent_lives(agent: Agent) -> None:
    async with agent.client.ws_connect("/ws") as socket:
        await socket.send_str("x" * 100_000)
        await wait_for(lambda: _closed(socket), "the socket to be closed")
    await agent.metrics()


async def _closed(socket: aiohttp.ClientWebSocketResponse) -> bool:
    return (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_prometheus_gets_its_text(home: Path) -> None:
    gpus = nvml_reader(FakeNvml([FakeGpu(percent=37, celsius=-3)]))
    async with serve(ComfySimulator()) as comfy, agent_at(home, gpus, COMFYUI_URL=comfy.url) as agent:
        async with agent.client.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"}) as response:
            assert response.content_type == "text/plain"
            text = await response.text()
        async with agent.client.get(
            "/metrics", headers={"Accept": "application/openmetrics-text"}
        ) as response:
            assert response.content_type == "application/openmetrics-text"
            assert (await response.text()).endswith("# EOF\n")
    assert 'comfy_agent_gpu_utilization_percent{index="0",name="NVIDIA H100"} 37.0' in text
    assert "comfy_agent_gpu_temperature_celsius" not in text
    assert "comfy_agent_comfyui_queue_pending 0.0" in text
    assert 'comfy_agent_model_sync_state{state="idle"} 1.0' in text


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/plain", True),
        ("text/plain, application/json", True),
        ("application/json, text/plain", False),
        ("text/plain;q=0.5, application/json", False),
        ("application/json;q=0.5, text/plain", True),
        ("text/plain;q=x", False),
        ("text/plain;q=0", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", True),
    ],
)
def test_json_unless_prometheus_is_preferred(accept: str, wanted: bool) -> None:
    assert wants_prometheus(accept) is wanted


async def test_versions_of_the_agent_and_of_comfyui_are_told(home: Path) -> None:
    async with (
        serve(ComfySimulator()) as comfy,
        agent_at(home, COMFYUI_URL=comfy.url) as agent,
        agent.client.get("/version") as response,
    ):
        assert await response.json() == {"agent": __version__, "comfyui": "0.3.64"}


PROTECTED = [
    "/metrics",
    "/version",
    "/stream",
    "/ws",
    "/files/output",
    "/files/output/x.png",
    "/logs",
    "/nowhere",
]


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        "Bearer \xff\xfe",
    ],
)
async def test_without_the_token_nothing_is_told(agent: Agent, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with aiohttp.ClientSession(agent.url) as stranger, stranger.get(path, headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert list(await response.json()) == ["error"]


async def test_a_put_without_the_token_writes_nothing(agent: Agent, home: Path) -> None:
    url = f"/files/input/x?total=1&sha256={'0' * 64}"
    async with aiohttp.ClientSession(agent.url) as stranger, stranger.put(url, data=b"x") as response:
        assert response.status == 401
    assert list((home / "input").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "status"), [("/metrics", 401), ("/logs", 401), ("/files/output", 401), ("/stream", 200)]
)
async def test_a_token_in_the_address_counts_for_streams_alone(agent: Agent, path: str, status: int) -> None:
    async with aiohttp.ClientSession(agent.url) as stranger:
        async with stranger.get(path, params={"token": TOKEN}) as response:
            assert response.status == status
        async with stranger.get(path, params={"token": "wrong"}) as response:
            assert response.status == 401


async def test_a_token_in_the_address_opens_a_socket(agent: Agent) -> None:
    async with aiohttp.ClientSession(agent.url) as stranger:
        async with stranger.ws_connect("/ws", params={"token": TOKEN}) as socket:
            assert "gpus" in json.loads((await socket.receive(5)).data)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await stranger.ws_connect("/ws", params={"token": "wrong"})


async def test_health_is_open(agent: Agent) -> None:
    async with aiohttp.ClientSession(agent.url) as stranger, stranger.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_without_a_token_set_everybody_may_ask_and_the_log_warns(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent_at(home, AUTH_TOKEN="") as agent:
        await agent.metrics()
    assert "AUTH_TOKEN is not set" in caplog.text


async def test_every_refusal_is_json(agent: Agent) -> None:
    for method, path, status in [("GET", "/nowhere", 404), ("POST", "/metrics", 405)]:
        async with agent.client.request(method, path) as response:
            assert response.status == status
            assert list(await response.json()) == ["error"]


class StuckGpu:
    """A driver that hangs."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def read(self) -> list[GpuReading]:
        self.free.wait(20)
        return []

    def close(self) -> None:
        pass


async def test_a_driver_that_hangs_holds_nothing_up(home: Path) -> None:
    stuck = StuckGpu()
    try:
        async with asyncio.timeout(8), agent_at(home, stuck) as agent:
            assert [message["gpus"] async for _, message in events(agent, 2)] == [[], []]
    finally:
        stuck.free.set()


async def test_a_late_answer_is_stood_in_for_by_a_young_one_only() -> None:
    clock = AgentsFakeClock()
    gate = asyncio.Event()
    gate.set()
    told = 0

    async def ask() -> int:
        nonlocal told
        await gate.wait()
        told += 1
        return told

    source = Source("a thing", ask, lambda last: -(last or 0), clock, patience_s=0.01)
    assert await source.value() == 1
    gate.clear()
    await clock.advance(KEEP_S)
    assert await source.value() == 1
    await clock.advance(0.1)
    assert await source.value() == -1
    gate.set()
    assert await source.value() == 2
    assert told == 2
    gate.clear()
    await source.value()
    await source.aclose()


async def test_a_failing_source_is_logged_once_and_unknown(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> int:
        raise OSError("no such thing")

    source = Source("a thing", ask, lambda _: 0, AgentsFakeClock())
    assert [await source.value() for _ in range(3)] == [0, 0, 0]
    assert len(caplog.records) == 1


async def test_a_sample_that_cannot_be_taken_ends_nothing() -> None:
    clock = AgentsFakeClock()
    tries = 0

    async def take(number: int) -> Sample:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("once")
        return Sample(number, clock.time(), clock.monotonic(), [], MachineReading())

    sampler = Sampler(take, 1.0, clock)
    running = asyncio.get_running_loop().create_task(sampler.run())
    await clock.advance(3.0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert (tries, sampler.latest and sampler.latest.number) == (4, 3)
