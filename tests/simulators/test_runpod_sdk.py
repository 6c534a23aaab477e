"""What the real `runpod` SDK makes of the simulated cloud: its healthy answers, and each of its faults."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from simulators.clock import FakeClock
from simulators.runpod import (
    CAPACITY_TEXTS,
    RESUME_CAPACITY_TEXT,
    Delays,
    Fault,
    NetworkVolume,
    Phase,
    RunPodSimulator,
    Served,
    serve,
)
from simulators.runpod.faults import KINDS, Kind
from tests.sdk import AuthenticationError, QueryError, runpod

KEY = "test-key"
RTX_4090 = "NVIDIA GeForce RTX 4090"
L40S = "NVIDIA L40S"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> RunPodSimulator:
    return RunPodSimulator(
        api_key=KEY, clock=clock, network_volumes=[NetworkVolume("vol1", "models", 100, "EU-CZ-1")]
    )


@pytest.fixture
async def served(
    cloud: RunPodSimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Served]:
    async with serve(cloud) as served:
        monkeypatch.setattr(runpod, "api_key", KEY)
        monkeypatch.setenv("RUNPOD_API_BASE_URL", served.api_base)
        # the SDK's HTTP library would obey both
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        yield served


async def sdk(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(function, *args, **kwargs)


async def create(name: str = "comfy-gw-ann-1", **wishes: Any) -> Any:
    wishes = {"gpu_type_id": RTX_4090, "cloud_type": "SECURE", "ports": "8188/http,8000/http"} | wishes
    return await sdk(runpod.create_pod, name, "image:1", **wishes)


async def outcome(call: Callable[[], Any]) -> Any:
    """What the SDK returns, or the type of what it raises."""
    try:
        return await sdk(call)
    except Exception as error:  # noqa: BLE001 - the type is the result
        return type(error)


async def eventually(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server, not in this test
            await asyncio.sleep(0.005)


async def turning(clock: FakeClock, seconds: float, condition: Callable[[], object]) -> None:
    """Turn the clock on until the condition holds: a call falls asleep a moment after it was counted."""

    def turned() -> object:
        clock.advance(seconds)
        return condition()

    await eventually(turned, deadline_s=10)


async def test_a_pod_is_created_seen_and_terminated(served: Served, cloud: RunPodSimulator) -> None:
    made = await create(env={"GATEWAY_POD_TOKEN": "t"}, gpu_count=2, container_disk_in_gb=50)
    assert set(made) == {"id", "imageName", "env", "machineId", "machine"}
    seen = await sdk(runpod.get_pod, made["id"])
    assert (seen["name"], seen["desiredStatus"], seen["env"]) == (
        "comfy-gw-ann-1",
        "RUNNING",
        ["GATEWAY_POD_TOKEN=t"],
    )
    assert (seen["gpuCount"], seen["containerDiskInGb"], seen["costPerHr"]) == (2, 50, pytest.approx(1.38))
    assert [pod["id"] for pod in await sdk(runpod.get_pods)] == [made["id"]]
    assert await sdk(runpod.terminate_pod, made["id"]) is None
    assert await sdk(runpod.get_pod, made["id"]) is None
    assert await sdk(runpod.get_pods) == []
    assert cloud.living() == []
    assert cloud.calls == {"gpu": 1, "create": 1, "get": 2, "list": 2, "terminate": 1}


async def test_each_step_of_the_boot_has_its_own_delay(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.delays = Delays(list_lag_s=2, runtime_s=4, port_s=6, app_ready_s=10)
    pod_id = (await create())["id"]
    assert await sdk(runpod.get_pods) == []
    assert (await sdk(runpod.get_pod, pod_id))["runtime"] is None
    clock.advance(2)
    assert len(await sdk(runpod.get_pods)) == 1
    clock.advance(2)
    assert (await sdk(runpod.get_pod, pod_id))["runtime"] == {"ports": []}
    clock.advance(2)
    ports = (await sdk(runpod.get_pod, pod_id))["runtime"]["ports"]
    assert [(port["privatePort"], port["type"]) for port in ports] == [(8188, "http"), (8000, "http")]
    assert cloud.pods[pod_id].phase(clock.monotonic()) is Phase.UP
    clock.advance(4)
    assert cloud.pods[pod_id].phase(clock.monotonic()) is Phase.READY


async def test_create_latency_holds_the_caller_and_the_pod_back(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.delays = Delays(create_s=20)
    creating = asyncio.ensure_future(create())
    await eventually(lambda: cloud.calls["create"] == 1)
    assert cloud.living() == []
    await turning(clock, 20, creating.done)
    assert (await creating)["id"] in cloud.pods


async def test_a_terminated_pod_may_still_be_shown_for_a_while(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.delays = Delays(terminate_visible_s=30)
    pod_id = (await create())["id"]
    clock.advance(60)
    await sdk(runpod.terminate_pod, pod_id)
    assert (await sdk(runpod.get_pod, pod_id))["desiredStatus"] == "RUNNING"
    assert len(await sdk(runpod.get_pods)) == 1
    assert cloud.living() == []
    clock.advance(30)
    assert await sdk(runpod.get_pod, pod_id) is None
    assert await sdk(runpod.get_pods) == []
    assert cloud.ledger.row(pod_id).billed_s == pytest.approx(60)


async def test_a_stopped_pod_keeps_a_stale_runtime_and_boots_again(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.delays = Delays(runtime_s=5, stale_runtime_s=10)
    pod_id = (await create())["id"]
    first_comfy = cloud.pods[pod_id].comfy
    clock.advance(60)
    assert (await sdk(runpod.stop_pod, pod_id))["desiredStatus"] == "EXITED"
    seen = await sdk(runpod.get_pod, pod_id)
    assert seen["runtime"] is not None
    assert seen["lastStatusChange"].startswith("Exited by user:")
    clock.advance(10)
    assert (await sdk(runpod.get_pod, pod_id))["runtime"] is None
    assert (await sdk(runpod.resume_pod, pod_id, 1))["desiredStatus"] == "RUNNING"
    assert cloud.pods[pod_id].phase(clock.monotonic()) is Phase.RENTED
    clock.advance(5)
    assert (await sdk(runpod.get_pod, pod_id))["runtime"] is not None
    assert cloud.pods[pod_id].comfy is not first_comfy
    assert cloud.ledger.row(pod_id).billed_s == pytest.approx(65)


async def test_without_a_gpu_type_a_cpu_pod_is_bought(served: Served, cloud: RunPodSimulator) -> None:
    pod_id = (await create(gpu_type_id=None))["id"]
    assert cloud.pods[pod_id].gpu is None
    assert (await sdk(runpod.get_pod, pod_id))["machine"]["gpuDisplayName"] is None


async def test_gpu_types_have_prices_and_an_unknown_one_is_refused_before_the_create(
    served: Served, cloud: RunPodSimulator
) -> None:
    assert RTX_4090 in [gpu["id"] for gpu in await sdk(runpod.get_gpus)]
    gpu = await sdk(runpod.get_gpu, RTX_4090, 2)
    assert (gpu["securePrice"], gpu["lowestPrice"]["uninterruptablePrice"]) == (0.69, pytest.approx(0.68))
    with pytest.raises(ValueError, match="No GPU found"):
        await create(gpu_type_id="NVIDIA 9999")
    assert cloud.calls["create"] == 0


async def test_a_network_volume_pins_the_data_centre_and_another_one_looks_like_no_capacity(
    served: Served, cloud: RunPodSimulator
) -> None:
    pod_id = (await create(network_volume_id="vol1"))["id"]
    assert cloud.pods[pod_id].data_center == "EU-CZ-1"
    assert cloud.calls["user"] == 1
    with pytest.raises(QueryError, match="no longer any instances"):
        await create(network_volume_id="vol1", data_center_id="US-KS-2")


async def test_a_wrong_key_is_refused(
    served: Served, cloud: RunPodSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runpod, "api_key", "wrong")
    with pytest.raises(AuthenticationError):
        await sdk(runpod.get_pods)
    assert cloud.calls == {"unauthorized": 1}


async def test_an_env_value_with_a_quote_breaks_the_create(served: Served, cloud: RunPodSimulator) -> None:
    with pytest.raises(QueryError, match="Syntax Error"):
        await create(env={"JSON": '{"a": 1}'})
    assert cloud.pods == {}


async def test_an_unescaped_name_can_terminate_another_pod(served: Served, cloud: RunPodSimulator) -> None:
    victim = (await create())["id"]
    evil = f'x"}}) {{ id }} podTerminate(input: {{podId: "{victim}"}}) a: podStop(input: {{podId: "x'
    with pytest.raises(QueryError):
        await sdk(runpod.stop_pod, evil)
    assert cloud.calls["terminate"] == 1
    assert cloud.living() == []


async def test_forty_threads_create_at_once_and_no_connection_is_reset(
    served: Served, cloud: RunPodSimulator
) -> None:
    made = await asyncio.gather(*(create(f"comfy-gw-u{number}-1") for number in range(40)))
    assert len({pod["id"] for pod in made}) == len(cloud.living()) == 40


# kind, details -> what get_pod and terminate_pod make of it
SPOILT: list[tuple[Kind, dict[str, Any], Any, Any]] = [
    ("unauthorized", {}, AuthenticationError, AuthenticationError),
    ("unauthorized_errors", {}, QueryError, QueryError),
    ("errors", {}, QueryError, QueryError),
    ("rate_limited", {}, KeyError, None),
    ("http_error", {"status": 500}, KeyError, None),
    ("http_error", {"status": 502}, KeyError, None),
    ("http_error", {"status": 410}, KeyError, None),
    ("html", {"status": 502}, requests.exceptions.JSONDecodeError, requests.exceptions.JSONDecodeError),
    ("empty", {}, requests.exceptions.JSONDecodeError, requests.exceptions.JSONDecodeError),
    ("null_data", {}, TypeError, None),
    ("reply", {"body": '{"errors": []}'}, IndexError, IndexError),
    ("reply", {"body": '{"errors": null}'}, TypeError, TypeError),
    ("reset", {}, requests.exceptions.ConnectionError, requests.exceptions.ConnectionError),
    ("null", {}, None, None),
]


@pytest.mark.parametrize(("kind", "details", "get", "terminate"), SPOILT)
async def test_the_sdk_takes_some_failures_for_success(
    served: Served, cloud: RunPodSimulator, kind: Kind, details: dict[str, Any], get: Any, terminate: Any
) -> None:
    pod_id = (await create())["id"]
    cloud.faults.add(Fault(operation="any", kind=kind, times=2, **details))
    assert await outcome(partial(runpod.get_pod, pod_id)) == get
    assert await outcome(partial(runpod.terminate_pod, pod_id)) == terminate
    assert [pod.id for pod in cloud.living()] == [pod_id]
    assert (await sdk(runpod.get_pod, pod_id))["id"] == pod_id


async def test_a_hanging_call_ends_without_an_answer_and_without_effect(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    pod_id = (await create())["id"]
    cloud.faults.add(Fault(operation="terminate", kind="hang", seconds=60))
    hanging = asyncio.ensure_future(outcome(partial(runpod.terminate_pod, pod_id)))
    await eventually(lambda: cloud.calls["terminate"] == 1)
    assert not hanging.done()
    await turning(clock, 60, hanging.done)
    assert await hanging is requests.exceptions.ConnectionError
    assert len(cloud.living()) == 1


async def test_a_rate_limit_says_when_to_come_back(served: Served, cloud: RunPodSimulator) -> None:
    cloud.faults.add(Fault(operation="list", kind="rate_limited", retry_after_s=17))
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as client,
        client.post(f"{served.api_base}/graphql", json={"query": "{myself{pods{id}}}"}) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (429, "17")
        assert "errors" not in await response.json()


@pytest.mark.parametrize("text", CAPACITY_TEXTS)
async def test_a_capacity_refusal_says_its_text(served: Served, cloud: RunPodSimulator, text: str) -> None:
    cloud.faults.add(Fault(operation="create", kind="capacity", text=text))
    with pytest.raises(QueryError) as refusal:
        await create()
    assert str(refusal.value) == text
    assert cloud.pods == {}


async def test_a_resume_finds_no_gpu_on_the_host(served: Served, cloud: RunPodSimulator) -> None:
    pod_id = (await create())["id"]
    await sdk(runpod.stop_pod, pod_id)
    cloud.faults.add(Fault(operation="resume", kind="capacity"))
    with pytest.raises(QueryError) as refusal:
        await sdk(runpod.resume_pod, pod_id, 1)
    assert str(refusal.value) == RESUME_CAPACITY_TEXT


async def test_a_refusal_is_limited_to_its_gpu_and_its_number_of_times(
    served: Served, cloud: RunPodSimulator
) -> None:
    cloud.faults.add(Fault(operation="create", kind="capacity", times=2, gpu=RTX_4090))
    assert "id" in await create(gpu_type_id=L40S)
    for _ in range(2):
        with pytest.raises(QueryError):
            await create()
    assert "id" in await create()


async def test_a_refusal_is_limited_to_its_data_centre(served: Served, cloud: RunPodSimulator) -> None:
    cloud.faults.add(Fault(operation="create", kind="capacity", times=None, data_center="US-KS-2"))
    assert "id" in await create(data_center_id="EU-RO-1")
    with pytest.raises(QueryError):
        await create(data_center_id="US-KS-2")


async def test_a_create_may_return_null(served: Served, cloud: RunPodSimulator) -> None:
    cloud.faults.add(Fault(operation="create", kind="null"))
    assert await create() is None
    assert cloud.pods == {}


async def test_a_create_that_answers_500_has_made_a_pod_that_bills(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="create", kind="commit_error", status=500))
    with pytest.raises(KeyError):
        await create()
    clock.advance(3600)
    assert [pod["name"] for pod in await sdk(runpod.get_pods)] == ["comfy-gw-ann-1"]
    assert cloud.ledger.total_usd() == pytest.approx(0.69)


async def test_a_create_whose_connection_breaks_has_made_a_pod(
    served: Served, cloud: RunPodSimulator
) -> None:
    cloud.faults.add(Fault(operation="create", kind="commit_reset"))
    with pytest.raises(requests.exceptions.ConnectionError):
        await create()
    assert len(cloud.living()) == 1


async def test_a_create_that_hangs_has_made_a_pod(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="create", kind="commit_hang", seconds=60))
    hanging = asyncio.ensure_future(create())
    await eventually(cloud.living)
    assert not hanging.done()
    await turning(clock, 60, hanging.done)
    with pytest.raises(requests.exceptions.ConnectionError):
        await hanging


async def test_a_slow_create_goes_through_after_the_caller_has_left(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="create", kind="slow", seconds=40))
    query = 'mutation { podFindAndDeployOnDemand(input: {name: "late", gpuTypeId: "NVIDIA L40S"}) { id } }'
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as client:
        asking = asyncio.ensure_future(client.post(f"{served.api_base}/graphql", json={"query": query}))
        await eventually(lambda: cloud.calls["create"] == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert cloud.living() == []
    await turning(clock, 40, cloud.living)
    assert [pod.name for pod in cloud.living()] == ["late"]


async def test_a_trickled_answer_arrives_whole(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="list", kind="trickle", seconds=5))
    started_s = clock.monotonic()
    listing = asyncio.ensure_future(sdk(runpod.get_pods))
    await turning(clock, 1, listing.done)
    assert await listing == []
    assert clock.monotonic() - started_s >= 5 * len('{"data": {"myself": {"pods": []}}}')


async def test_a_create_may_make_two_pods_of_one_name(served: Served, cloud: RunPodSimulator) -> None:
    cloud.faults.add(Fault(operation="create", kind="duplicate", count=2))
    made = await create()
    listed = await sdk(runpod.get_pods)
    assert [pod["name"] for pod in listed] == ["comfy-gw-ann-1"] * 2
    assert made["id"] in [pod["id"] for pod in listed]


async def test_a_swallowed_termination_leaves_a_pod_that_bills(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    pod_id = (await create())["id"]
    cloud.faults.add(Fault(operation="terminate", kind="swallow"))
    assert await sdk(runpod.terminate_pod, pod_id) is None
    clock.advance(3600)
    assert (await sdk(runpod.get_pod, pod_id))["desiredStatus"] == "RUNNING"
    assert cloud.ledger.total_usd() == pytest.approx(0.69)
    await sdk(runpod.terminate_pod, pod_id)
    assert cloud.living() == []


async def test_a_stuck_pod_never_gets_a_runtime(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="create", kind="stuck"))
    pod_id = (await create())["id"]
    clock.advance(24 * 3600)
    seen = await sdk(runpod.get_pod, pod_id)
    assert (seen["desiredStatus"], seen["runtime"]) == ("RUNNING", None)


async def test_a_container_that_crashes_is_started_again_and_bills(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.delays = Delays(runtime_s=20)
    cloud.faults.add(Fault(operation="create", kind="crash_loop", seconds=10))
    pod_id = (await create())["id"]
    has_runtime = []
    for _ in range(10):
        clock.advance(5)
        seen = await sdk(runpod.get_pod, pod_id)
        assert seen["desiredStatus"] == "RUNNING"
        has_runtime.append(seen["runtime"] is not None)
    assert has_runtime == [False] * 3 + [True, True, False] * 2 + [True]
    assert cloud.ledger.row(pod_id).billed_s == 50


async def test_a_pod_on_a_bad_host_runs_on_no_machine(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="create", kind="no_machine"))
    pod_id = (await create())["id"]
    clock.advance(24 * 3600)
    seen = await sdk(runpod.get_pod, pod_id)
    assert (seen["desiredStatus"], seen["machine"], seen["runtime"]) == ("RUNNING", None, None)


async def test_a_pod_may_exit_soon_after_its_creation(
    served: Served, cloud: RunPodSimulator, clock: FakeClock
) -> None:
    cloud.faults.add(Fault(operation="create", kind="exit_after", seconds=4, text="Outbid"))
    pod_id = (await create())["id"]
    clock.advance(3.9)
    assert (await sdk(runpod.get_pod, pod_id))["desiredStatus"] == "RUNNING"
    clock.advance(100)
    seen = await sdk(runpod.get_pod, pod_id)
    assert seen["desiredStatus"] == "EXITED"
    assert seen["lastStatusChange"].startswith("Outbid:")
    assert cloud.ledger.row(pod_id).billed_s == pytest.approx(4)


async def test_a_pod_may_vanish(served: Served, cloud: RunPodSimulator, clock: FakeClock) -> None:
    cloud.faults.add(Fault(operation="create", kind="vanish_after", seconds=30))
    pod_id = (await create())["id"]
    clock.advance(30)
    assert await sdk(runpod.get_pod, pod_id) is None
    assert await sdk(runpod.get_pods) == []


async def test_a_list_may_lack_one_pod_for_one_poll(served: Served, cloud: RunPodSimulator) -> None:
    first, second = [(await create(f"comfy-gw-{name}-1"))["id"] for name in ("ann", "bob")]
    cloud.faults.add(Fault(operation="list", kind="drop", pod=first))
    assert [pod["id"] for pod in await sdk(runpod.get_pods)] == [second]
    assert [pod["id"] for pod in await sdk(runpod.get_pods)] == [first, second]


async def test_a_list_may_be_null(served: Served, cloud: RunPodSimulator) -> None:
    await create()
    cloud.faults.add(Fault(operation="list", kind="null_list"))
    assert await sdk(runpod.get_pods) is None
    cloud.faults.add(Fault(operation="list", kind="null"))
    assert await outcome(runpod.get_pods) is TypeError


async def test_a_stale_list_shows_the_past(served: Served, cloud: RunPodSimulator, clock: FakeClock) -> None:
    old = (await create("comfy-gw-old-1"))["id"]
    clock.advance(60)
    await sdk(runpod.terminate_pod, old)
    new = (await create("comfy-gw-new-1"))["id"]
    clock.advance(5)
    cloud.faults.add(Fault(operation="list", kind="stale", seconds=30))
    assert [pod["id"] for pod in await sdk(runpod.get_pods)] == [old]
    assert [pod["id"] for pod in await sdk(runpod.get_pods)] == [new]
    cloud.faults.add(Fault(operation="get", kind="stale", seconds=30))
    assert (await sdk(runpod.get_pod, old))["desiredStatus"] == "RUNNING"


async def test_terminating_an_unknown_pod_is_an_error(served: Served) -> None:
    with pytest.raises(QueryError, match="pod not found"):
        await sdk(runpod.terminate_pod, "nosuchpod")


def test_every_kind_of_fault_is_shown_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []
