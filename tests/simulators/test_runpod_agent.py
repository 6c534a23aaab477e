"""Files of a pod through its agent: the simulated one and the real one answer alike (docs/agent.md)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from simulators.comfyui import Served as ServedComfy
from simulators.runpod import (
    GPU_TYPES,
    AgentKind,
    PodOrder,
    ProxyLimits,
    RunPodSimulator,
    Served,
    SimPod,
    serve,
)
from tests.simulators.comfy_client import Duty, eventually, png, saved

TOKEN = {"X-Comfy-Gateway-Token": "door"}
LEASE = {"X-Comfy-Gateway-Lease": "1"}
LIMITS = ProxyLimits(body_bytes=100_000)


@dataclass
class Pod:
    """A pod, its agent as a client sees it, and its ComfyUI."""

    cloud: RunPodSimulator
    sim: SimPod
    agent: aiohttp.ClientSession
    comfy: Duty

    @property
    def output(self) -> Path:
        return self.sim.comfy.folders.output

    @property
    def input(self) -> Path:
        return self.sim.comfy.folders.input

    async def listed(self, **query: str) -> Any:
        async with self.agent.get("files/output", params=query) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def names(self, **query: str) -> list[str]:
        return [file["path"] for file in (await self.listed(**query))["files"]]

    async def put(
        self,
        path: str,
        body: bytes | AsyncIterator[bytes],
        offset: int = 0,
        *,
        whole: bytes | None = None,
        sha256: str | None = None,
        total: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Sends a part of a file (all of it, unless `whole` is told) and returns status and answer."""
        content = whole if whole is not None else body if isinstance(body, bytes) else b""
        digest = sha256 or hashlib.sha256(content).hexdigest()
        size_bytes = len(content) if total is None else total
        query = f"total={size_bytes}&sha256={digest}&offset={offset}"
        url = URL(f"{self.agent._base_url}files/input/{path}?{query}", encoded=True)
        async with self.agent.put(url, data=body, headers=headers) as answer:
            told = await answer.json() if answer.content_type == "application/json" else await answer.text()
            return answer.status, told

    async def received(self, path: str, whole: bytes) -> Any:
        query = {"total": str(len(whole)), "sha256": hashlib.sha256(whole).hexdigest()}
        async with self.agent.get(f"files/input/{path}", params=query) as answer:
            return await answer.json()


@pytest.fixture
async def cloud() -> AsyncIterator[tuple[RunPodSimulator, Served]]:
    simulator = RunPodSimulator()
    async with serve(simulator, limits=LIMITS) as served:
        yield simulator, served


@pytest.fixture(params=["simulated", "real"])
async def pod(request: pytest.FixtureRequest, cloud: tuple[RunPodSimulator, Served]) -> AsyncIterator[Pod]:
    simulator, served = cloud
    kind: AgentKind = request.param
    simulator.agent = kind
    env = {"GATEWAY_POD_TOKEN": "door", "AUTH_TOKEN": "watch", "AGENT_MAX_PART_BYTES": "50000"}
    order = PodOrder(name="comfy-gw-ann-1", gpu=GPU_TYPES[0], ports="8188/http,8000/http", env=env)
    rented = simulator.create(order)
    async with (
        aiohttp.ClientSession(
            served.pod_url(rented.id, 8000) + "/", headers={"Authorization": "Bearer watch"}
        ) as agent,
        aiohttp.ClientSession(served.pod_url(rented.id) + "/", headers=TOKEN) as comfy,
    ):
        duty = Duty(rented.comfy, ServedComfy(served.pod_url(rented.id), 0), comfy)
        assert await duty.get("queue")  # the first question starts it, and its folders are there
        yield Pod(simulator, rented, agent, duty)


async def test_what_comfyui_made_is_listed_read_and_noted(pod: Pod) -> None:
    await pod.comfy.run(saved(1, "b/ü %41"))
    await pod.comfy.run(saved(2, "a"))
    (pod.output / ".hidden").write_bytes(b"x")
    (pod.output / "empty").touch()
    (pod.output / "link").symlink_to(pod.output / "a_00001_.png")
    told = await pod.listed()
    assert told["next"] is None
    assert [file["path"] for file in told["files"]] == ["a_00001_.png", "b/ü %41_00001_.png", "empty"]
    first, second, _ = told["files"]
    body = (pod.output / "a_00001_.png").read_bytes()
    seen = (pod.output / "a_00001_.png").stat()
    assert first == {
        "path": "a_00001_.png",
        "size_bytes": len(body),
        "modified": seen.st_mtime_ns / 1e9,
        "etag": f"{seen.st_mtime_ns:x}-{seen.st_size:x}",
        "fetched": False,
    }
    assert await pod.names(unfetched="1") == ["a_00001_.png", "b/ü %41_00001_.png"]
    page = await pod.listed(limit="2")
    assert (len(page["files"]), page["next"]) == (2, "b/ü %41_00001_.png")
    assert await pod.names(after=page["next"]) == ["empty"]

    async with pod.agent.get("files/output/a_00001_.png", headers={"Range": "bytes=1-3"}) as answer:
        assert (answer.status, await answer.read()) == (206, body[1:4])
        assert answer.headers["ETag"] == f'"{first["etag"]}"'
    assert "a_00001_.png" in await pod.names(unfetched="1")
    async with pod.agent.get("files/output/a_00001_.png") as answer:
        assert (answer.status, await answer.read()) == (200, body)
        assert answer.content_type == "application/octet-stream"
    assert await pod.names(unfetched="1") == ["b/ü %41_00001_.png"]
    not_modified = {"If-None-Match": f'"{first["etag"]}"'}
    async with pod.agent.get("files/output/a_00001_.png", headers=not_modified) as answer:
        assert answer.status == 304

    note = {"files": [{"path": second["path"], "etag": second["etag"]}]}
    async with pod.agent.post("files/output/fetched", json=note) as answer:
        assert await answer.json() == {"noted": 1}
    assert await pod.names(unfetched="1") == []
    (pod.output / "a_00001_.png").write_bytes(b"changed")
    assert await pod.names(unfetched="1") == ["a_00001_.png"]

    pod.cloud.kill_agent(pod.sim.id)
    async with pod.agent.get("files/output") as answer:
        assert answer.status == 502
    pod.cloud.kill_agent(pod.sim.id, dead=False)
    assert await pod.names(unfetched="1") == ["a_00001_.png", "b/ü %41_00001_.png"]


async def test_what_may_not_be_named_is_refused(pod: Pod) -> None:
    await pod.comfy.run(saved())
    (pod.output / "link").symlink_to(pod.output / "ComfyUI_00001_.png")
    base = pod.agent._base_url
    statuses = {}
    for path in ("..%2F..%2Fsecret", ".hidden", "a%5Cb", "a%00b", "link", "none.png"):
        async with pod.agent.get(URL(f"{base}files/output/{path}", encoded=True)) as answer:
            statuses[path] = answer.status
            assert "error" in await answer.json()
    assert list(statuses.values()) == [400, 400, 400, 400, 400, 404]
    for query in ("limit=0", "limit=x", "limit=10001"):
        async with pod.agent.get(f"files/output?{query}") as answer:
            assert answer.status == 400
    async with pod.agent.post("files/output/fetched", json={"files": ["x"]}) as answer:
        assert answer.status == 400
    async with pod.agent.get("files/output", headers={"Authorization": "Bearer guess"}) as answer:
        assert answer.status == 401
    for query in ("total=1", "sha256=" + "a" * 64, "total=1&sha256=xyz"):
        async with pod.agent.get(f"files/input/x?{query}") as answer:
            assert answer.status == 400
    assert (await pod.put("..%2Fx", b"x"))[0] == 400


async def test_an_input_arrives_in_parts_and_is_used(pod: Pod) -> None:
    whole = png("red", (40, 40)) + bytes(90_000)
    path = "sub/%C3%BC%20x.png"
    status, told = await pod.put(path, whole[:40_000], whole=whole)
    assert (status, told["state"], told["received_bytes"]) == (200, "partial", 40_000)
    assert told["path"] == "sub/ü x.png"
    assert not (pod.input / "sub/ü x.png").exists()
    assert (await pod.put(path, whole[40_000:80_000], whole=whole))[1]["received_bytes"] == 40_000
    assert (await pod.put(path, whole[:1], whole=whole))[0] == 409
    assert (await pod.received(path, whole))["received_bytes"] == 40_000
    assert (await pod.put(path, whole[40_000:80_000], 40_000, whole=whole))[0] == 200
    status, told = await pod.put(path, whole[80_000:], 80_000, whole=whole)
    assert (status, told["state"]) == (201, "complete")
    assert (pod.input / "sub/ü x.png").read_bytes() == whole
    assert (await pod.put(path, whole[80_000:], 80_000, whole=whole))[0] == 200
    assert (await pod.received(path, whole))["state"] == "complete"
    load = {"class_type": "LoadImage", "inputs": {"image": "sub/ü x.png"}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "loaded"}}
    assert (await pod.comfy.run({"1": load, "2": save}))["status"]["completed"] is True


async def test_parts_that_do_not_fit_are_refused(pod: Pod) -> None:
    await pod.put("there.bin", b"there")
    assert (await pod.put("there.bin", b"other", headers={"If-None-Match": "*"}))[0] == 412
    assert (await pod.put("there.bin", b"there", headers={"If-None-Match": "*"}))[0] == 200
    assert (await pod.put("there.bin", b"other"))[0] == 201
    status, told = await pod.put("x.bin", b"12345", total=3)
    assert (status, told["received_bytes"]) == (400, 0)
    assert (await pod.put("x.bin", bytes(50_001)))[0] == 413
    status, told = await pod.put("x.bin", b"x", sha256="a" * 64)
    assert (status, told["received_bytes"]) == (422, 0)
    assert (await pod.put("x.bin", b"x", sha256="a" * 64))[0] == 422


async def test_one_request_at_a_time_sends_a_file(pod: Pod) -> None:
    whole = b"12"

    async def taken() -> bool:
        return any((pod.input / ".agent-uploads").glob("*.part"))

    async def slowly() -> AsyncIterator[bytes]:
        yield whole[:1]
        await eventually(taken)
        assert (await pod.put("busy.bin", b"", whole=whole))[0] == 409
        yield whole[1:]

    assert (await pod.put("busy.bin", slowly(), whole=whole))[0] == 201


@pytest.mark.parametrize("chunked", [False, True], ids=["declared length", "chunked"])
async def test_the_proxy_refuses_what_is_too_large_before_the_agent_sees_it(pod: Pod, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield bytes(10_000)
            await asyncio.sleep(0)

    pod.sim.env["AGENT_MAX_PART_BYTES"] = "1000000"
    whole = bytes(110_000)
    status, told = await pod.put("big.bin", pieces() if chunked else whole, whole=whole)
    assert status == 413
    assert "<html>" in told


async def test_an_agent_serves_files_while_its_comfyui_is_dead(pod: Pod) -> None:
    await pod.comfy.run(saved())
    pod.cloud.kill_app(pod.sim.id)
    assert await pod.names() == ["ComfyUI_00001_.png"]
    pod.cloud.kill_app(pod.sim.id, dead=False)
    pod.cloud.restart_app(pod.sim.id)
    assert await pod.comfy.get("history") == {}
    assert await pod.names(unfetched="1") == ["ComfyUI_00001_.png"]


async def test_telemetry_and_lease_are_the_clouds_with_either_agent(pod: Pod) -> None:
    async with pod.agent.get("metrics", headers=LEASE) as answer:
        assert (await answer.json())["gpus"][0]["name"] == GPU_TYPES[0].id
    async with pod.agent.get("files/output", headers=LEASE) as answer:
        assert answer.status == 200
    async with pod.agent.get("healthz", headers={"Authorization": "x", **LEASE}) as answer:
        assert await answer.json() == {"status": "ok"}
    assert len(pod.sim.lease_times_s) == 2


async def test_an_agent_goes_with_its_pod(pod: Pod) -> None:
    await pod.comfy.run(saved())
    assert await pod.names() == ["ComfyUI_00001_.png"]
    output = pod.output
    pod.cloud.terminate(pod.sim.id)
    async with pod.agent.get("files/output") as answer:
        assert answer.status == 404
    async with asyncio.timeout(10):
        while output.exists():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)
