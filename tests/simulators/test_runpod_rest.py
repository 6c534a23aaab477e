"""The simulated REST API: every answer is held against RunPod's own published description."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from simulators.clock import FakeClock
from simulators.runpod import Delays, Fault, NetworkVolume, RunPodSimulator, Step, serve
from tests.contract.published import faults_of_answer, faults_of_request

KEY = "test-key"
GPU = "NVIDIA GeForce RTX 4090"
ORDER: dict[str, Any] = {
    "name": "comfy-gw-a-b",
    "image": "example/comfyui:1",
    "gpu": {"id": GPU, "count": 2},
    "cloud": "SECURE",
    "disk": 33,
    "ports": ["8188/http", "8000/http"],
    "env": {"QUOTES": 'a "quoted"\nline', "TOKEN": "x"},
}
STOCK = {"include": "AVAILABILITY", "product": "POD"}


@dataclass
class Said:
    """An answer, already held against the description."""

    status: int
    document: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Caller:
    """Asks, and fails the test for an answer that the description does not allow."""

    http: aiohttp.ClientSession
    base: str

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        like: str | None = None,
        key: str = KEY,
        **query: str,
    ) -> Said:
        async with self.http.request(
            method, f"{self.base}{path}", json=body, params=query, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            text = await response.read()
            document = json.loads(text) if text else None
            told = faults_of_answer(method, like or path, response.status, response.content_type, document)
            assert told == []
            return Said(response.status, document, dict(response.headers))

    async def pod(self, pod_id: str) -> Said:
        return await self("GET", f"/v2/pods/{pod_id}", like="/v2/pods/{id}")

    async def act(self, pod_id: str, action: str) -> Said:
        return await self(
            "POST", f"/v2/pods/{pod_id}/action", {"action": action}, like="/v2/pods/{id}/action"
        )

    async def create(self, **changes: Any) -> Said:
        return await self("POST", "/v2/pods", ORDER | changes)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> RunPodSimulator:
    return RunPodSimulator(
        api_key=KEY, clock=clock, network_volumes=[NetworkVolume("vol1", "models", 100, "EU-SE-1")]
    )


@pytest.fixture
async def call(cloud: RunPodSimulator) -> AsyncIterator[Caller]:
    async with serve(cloud) as served, aiohttp.ClientSession() as http:
        yield Caller(http, served.api_base)


def test_an_answer_that_the_description_does_not_allow_is_noticed() -> None:
    assert faults_of_answer("GET", "/v2/pods", 200, "application/json", {"pods": [{"id": "a"}]})
    assert faults_of_answer("GET", "/v2/pods", 500, "application/json", {})
    assert faults_of_request("POST", "/v2/pods", {"name": "a"})
    assert faults_of_request("POST", "/v2/pods", ORDER | {"gpuTypeId": GPU})


async def test_a_pod_from_its_order_to_its_end(
    cloud: RunPodSimulator, clock: FakeClock, call: Caller
) -> None:
    assert faults_of_request("POST", "/v2/pods", ORDER) == []
    cloud.delays = Delays(runtime_s=10)
    made = await call.create()
    assert (made.status, made.document["status"]) == (201, "PROVISIONING")
    assert made.document["env"] == ORDER["env"]
    assert made.document["createdAt"] == (
        datetime.fromtimestamp(clock.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    pod_id = made.document["id"]
    clock.advance(6)
    assert (await call.pod(pod_id)).document["status"] == "STARTING"
    clock.advance(6)
    running = (await call.pod(pod_id)).document
    assert (running["status"], running["cost"]) == ("RUNNING", 2 * 0.69)
    assert [gpu["util"] for gpu in running["runtime"]["gpus"]] == [0, 0]
    assert (await call("GET", "/v2/pods")).document["pods"] == [running]
    stopped = (await call.act(pod_id, "stop")).document
    assert (stopped["status"], stopped["cost"], stopped["runtime"]) == ("EXITED", 0.0, None)
    assert (await call.act(pod_id, "stop")).status == 409
    assert (await call.act(pod_id, "start")).document["status"] == "PROVISIONING"
    assert (await call("DELETE", f"/v2/pods/{pod_id}", like="/v2/pods/{id}")).status == 204
    assert (await call.pod(pod_id)).status == 404
    assert (await call("DELETE", f"/v2/pods/{pod_id}", like="/v2/pods/{id}")).status == 404
    assert (await call("GET", "/v2/pods")).document == {"pods": []}


async def test_a_pod_on_a_bad_host_stays_in_no_data_centre(
    cloud: RunPodSimulator, clock: FakeClock, call: Caller
) -> None:
    cloud.faults.add(Fault(operation="create", kind="no_machine"))
    pod_id = (await call.create()).document["id"]
    clock.advance(24 * 3600)
    seen = (await call.pod(pod_id)).document
    assert (seen["status"], seen["dataCenterId"], seen["runtime"]) == ("PROVISIONING", None, None)


async def test_the_two_apis_show_one_account(cloud: RunPodSimulator, call: Caller) -> None:
    pod_id = (await call.create()).document["id"]
    query = {"query": f'mutation {{ podTerminate(input: {{podId: "{pod_id}"}}) }}'}
    async with call.http.post(
        f"{call.base}/graphql", json=query, headers={"Authorization": f"Bearer {KEY}"}
    ) as response:
        assert response.status == 200
    assert (await call.pod(pod_id)).status == 404
    assert (await call.create()).status == 201
    cloud.retired = True
    async with call.http.post(f"{call.base}/graphql", json=query) as response:
        assert response.status == 410
    assert len((await call("GET", "/v2/pods")).document["pods"]) == 1


@pytest.mark.parametrize("action", ["terminate", "restart"])
async def test_actions_end_a_pod_or_say_that_they_cannot(
    cloud: RunPodSimulator, call: Caller, action: str
) -> None:
    pod_id = (await call.create()).document["id"]
    assert (await call.act(pod_id, action)).status == {"terminate": 204, "restart": 501}[action]
    assert (len(cloud.living()) == 0) == (action == "terminate")
    assert (await call.act("nosuchpod", "stop")).status == 404


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"gpuTypeId": GPU}, 422, "gpuTypeId"),
        ({"name": None}, 422, "name"),
        ({"image": None}, 422, "image is required"),
        ({"gpu": {"id": "NVIDIA Potato"}}, 400, "unknown gpu type"),
        ({"gpu": {"id": GPU, "allowedCudaVersions": ["12.8"], "minCudaVersion": "12.1"}}, 400, "exclusive"),
        (
            {
                "mounts": {
                    "persistent": {"size": 20, "path": "/a"},
                    "network": [{"volumeId": "vol1", "path": "/a"}],
                }
            },
            400,
            "exclusive",
        ),
        ({"mounts": {"network": [{"volumeId": "none", "path": "/a"}]}}, 400, "no longer any instances"),
    ],
)
async def test_a_wrong_order_makes_nothing(
    cloud: RunPodSimulator, call: Caller, changes: dict[str, Any], status: int, text: str
) -> None:
    told = await call.create(**changes)
    assert told.status == status
    assert text in json.dumps(told.document)
    assert cloud.pods == {}


async def test_where_the_pods_files_are(cloud: RunPodSimulator, call: Caller) -> None:
    mount: dict[str, Any] = {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    first = (await call.create(mounts=mount)).document
    assert (first["mounts"], first["dataCenterId"]) == (mount, "EU-SE-1")
    mount = {"persistent": {"size": 20, "path": "/workspace"}}
    assert (await call.create(mounts=mount)).document["mounts"] == mount
    assert [pod.order.volume_gb for pod in cloud.living()] == [0, 20]


async def test_stock_is_told_when_it_is_asked_for(cloud: RunPodSimulator, call: Caller) -> None:
    path, like = f"/v2/catalog/gpus/{GPU}", "/v2/catalog/gpus/{id}"
    plain = (await call("GET", path, like=like)).document
    assert plain["price"] == {"secure": 0.69, "community": 0.34}
    assert "availability" not in plain
    told = (await call("GET", path, like=like, **STOCK)).document
    assert told["availability"] == "HIGH"
    assert "EU-RO-1" in {center["id"] for center in told["dataCenters"]}
    cloud.stock[GPU] = "NONE"
    told = (await call("GET", path, like=like, **STOCK)).document
    assert (told["availability"], "dataCenters" in told) == ("NONE", False)
    levels = {
        gpu["id"]: gpu["availability"]
        for gpu in (await call("GET", "/v2/catalog/gpus", **STOCK)).document["gpus"]
    }
    assert (levels[GPU], levels["NVIDIA L40S"]) == ("NONE", "HIGH")
    assert (await call("GET", path, like=like, include="AVAILABILITY")).status == 400
    assert (await call("GET", "/v2/catalog/gpus/Potato", like=like)).status == 404
    refused = await call.create()
    assert (refused.status, cloud.pods) == (400, {})
    assert "no longer any instances" in refused.document["detail"]


async def test_stock_and_retirement_are_set_from_outside(cloud: RunPodSimulator, call: Caller) -> None:
    admin = f"{call.base}/_sim"
    for path, body, status in [
        ("/stock", {GPU: "LOW"}, 200),
        ("/stock", {GPU: "SOME"}, 422),
        ("/retired", {"retired": True}, 200),
        ("/retired", {"retired": "maybe"}, 422),
    ]:
        async with call.http.post(f"{admin}{path}", json=body) as response:
            assert response.status == status
    assert (cloud.stock, cloud.retired) == ({GPU: "LOW"}, True)


async def test_another_key_is_refused(cloud: RunPodSimulator, call: Caller) -> None:
    assert (await call("GET", "/v2/pods", key="other")).status == 401
    assert (await call("POST", "/v2/pods", ORDER, key="other")).status == 401
    told = await call("POST", "/v2/pods/a/action", {}, key="other", like="/v2/pods/{id}/action")
    assert told.status == 401
    told = await call("POST", "/v2/pods/a/action", {}, like="/v2/pods/{id}/action")
    assert told.status == 422
    assert cloud.calls["unauthorized"] == 3


@pytest.mark.parametrize(
    ("kind", "details", "status"),
    [
        ("unauthorized", {}, 401),
        ("unauthorized_errors", {}, 403),
        ("errors", {}, 500),
        ("errors", {"status": 402}, 402),
        ("rate_limited", {"retry_after_s": 7}, 429),
        ("http_error", {"status": 503}, 503),
        ("commit_error", {}, 500),
        ("capacity", {}, 400),
    ],
)
async def test_refusals_are_problems_and_only_some_have_done_something(
    cloud: RunPodSimulator, call: Caller, kind: Any, details: dict[str, Any], status: int
) -> None:
    cloud.faults.add(Fault(operation="create", kind=kind, **details))
    told = await call.create()
    assert told.status == status
    assert told.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert len(cloud.pods) == (1 if kind == "commit_error" else 0)


async def test_a_list_may_be_null_and_lack_a_pod(cloud: RunPodSimulator, call: Caller) -> None:
    await call.create()
    for kind in ("null_list", "null", "null_data", "drop"):
        cloud.faults.add(Fault(operation="list", kind=kind))

    async def listed() -> Any:
        async with call.http.get(
            f"{call.base}/v2/pods", headers={"Authorization": f"Bearer {KEY}"}
        ) as answer:
            return await answer.json()

    assert [await listed() for _ in range(4)] == [{"pods": None}, None, None, {"pods": []}]
    assert len((await listed())["pods"]) == 1


async def test_what_runpod_may_not_know_of_a_running_pod(
    cloud: RunPodSimulator, clock: FakeClock, call: Caller
) -> None:
    cloud.faults.add(Fault(operation="create", kind="slow"))
    assert (await call.create()).status == 201
    pod = cloud.living()[0]
    pod.telemetry.script(Step(gpu_percent=None))
    pod.delays = Delays(port_s=100)
    told = (await call.pod(pod.id)).document["runtime"]
    assert (told["gpus"], told["ports"]) == ([{"memoryUtil": 10}] * 2, [])
    pod.runtime_hidden = True
    told = (await call.pod(pod.id)).document
    assert (told["status"], told["runtime"]) == ("RUNNING", None)
