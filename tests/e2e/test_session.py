"""The whole life of a private pod: mitmdump as a process, the real SDK or the REST API, a simulated RunPod."""

import asyncio
import signal

import aiohttp
import pytest

from simulators.runpod import Fault, PodOrder
from tests.e2e.cloud import GPU, Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture


async def burst(person: Person, prompts: int = 5) -> None:
    """Submit so many prompts, all of them accepted."""
    for _ in range(prompts):
        answer = await person.prompt()
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("api", ["sdk", "v2"])
async def test_a_burst_buys_one_pod_moves_the_user_there_and_idleness_ends_it(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, api: str
) -> None:
    cloud.sim.retired = api == "v2"
    settings = cloud.settings(
        duty, RUNPOD_API=api, RUNPOD_TELEMETRY_IDLE_S="2", RUNPOD_TELEMETRY_POLL_S="0.3"
    )
    async with start_gateway(**settings) as gateway:
        alice, bob = (Person(http, gateway.url, name=name) for name in ("alice", "bob"))
        await burst(alice, 4)
        assert cloud.sim.pods == {}
        await burst(alice, 1)
        await eventually(alice.is_ready, "alice is on her pod")
        [pod] = cloud.sim.pods.values()
        assert pod.name.startswith("comfy-gw-alice")

        answer = await alice.prompt()
        assert answer.headers["X-Comfy-Session-Source"] == "private"
        assert len(duty.sim.accepted) == 5
        assert len(pod.comfy.accepted) == 1
        bobs = await bob.prompt()
        assert bobs.headers["X-Comfy-Session-Source"] == "duty"
        assert (await alice.get("/")).headers["X-Comfy-Session-Source"] == "duty"

        await eventually(lambda: not cloud.sim.living(), "the idle pod is gone")
        await gateway.wait_for_line("terminating -> shared")
        assert not await alice.is_ready()
        assert (await alice.prompt()).headers["X-Comfy-Session-Source"] == "duty"

        told = gateway.lines_with("RunPod session named:alice:")
        states = [
            line.split(": ")[1].split(",")[0] for line in (line[line.index("RunPod") :] for line in told)
        ]
        assert states == [
            "shared -> requested",
            "requested -> creating",
            "creating -> booting",
            "booting -> verifying",
            "verifying -> ready",
            "ready -> draining",
            "draining -> terminating",
            "terminating -> shared",
        ]
        secrets = [pod.env["AUTH_TOKEN"], pod.env["GATEWAY_POD_TOKEN"], "test-key"]
        assert not [secret for secret in secrets if secret in gateway.log]


async def test_forty_prompts_at_once_buy_one_pod(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        answers = await asyncio.gather(*(alice.prompt(picture(seed)) for seed in range(40)))
        assert {answer.status for answer in answers} == {200}
        await eventually(alice.is_ready, "alice is on her pod")
        assert len(cloud.sim.pods) == 1


async def test_refused_prompts_do_not_count(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        for _ in range(8):
            assert (await alice.prompt({"1": {"class_type": "Nonsense", "inputs": {}}})).status == 400
        await burst(alice, 4)
        assert not gateway.lines_with("RunPod session")
        assert cloud.sim.pods == {}


async def test_a_socket_that_stays_open_hears_prompts_on_both_sides_of_the_move(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url, client_id="tab")
        async with alice.socket() as events:
            flags = {"supports_preview_metadata": True}  # as the front end: its previews name their node
            await events.socket.send_json({"type": "feature_flags", "data": flags})
            await events.until(lambda event: event["type"] == "feature_flags", "duty has heard it")
            slow = [await (await alice.prompt(picture(n, sleep_s=0.8))).json() for n in range(5)]
            await eventually(alice.is_ready, "alice is on her pod")
            quick = await (await alice.prompt(picture(99, sleep_s=0.1))).json()
            assert quick["prompt_id"] not in {prompt["prompt_id"] for prompt in duty.sim.accepted}
            await events.until(
                lambda event: event["data"] == {"node": None, "prompt_id": slow[4]["prompt_id"]},
                "the last of the prompts on duty",
            )
            told = {prompt["prompt_id"]: events.told(prompt["prompt_id"]) for prompt in (*slow, quick)}
            assert list(told.values()) == [told[quick["prompt_id"]]] * 6
            assert [kind for kind, _ in told[quick["prompt_id"]]] == [
                *("execution_start", "execution_cached", "executing", "executing"),
                *["progress"] * 4,
                *("executing", "executed", "execution_success", "executing"),
            ]
            ended = [
                event["data"]["prompt_id"] for event in events.seen if event["type"] == "execution_success"
            ]
            assert quick["prompt_id"] in ended[:-1], "before the five are done"
            assert [prompt_id for prompt_id in ended if prompt_id != quick["prompt_id"]] == [
                prompt["prompt_id"] for prompt in slow
            ]
        # What was made on duty is still answered by duty.
        history = await alice.get(f"/history/{slow[0]['prompt_id']}")
        assert slow[0]["prompt_id"] in await history.json()


async def test_a_restart_finds_the_pod_again_and_buys_no_second_one(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await eventually(alice.is_ready, "alice is on her pod")
        assert await gateway.stop() == 0
        [farewell] = gateway.lines_with("lives on at")
        assert "$0.69 an hour" in farewell
    async with start_gateway(**cloud.settings(duty, RUNPOD_API_KEY="")) as gateway:
        assert not await Person(http, gateway.url).is_ready()
        assert len(gateway.lines_with("may still cost money, but RUNPOD_API_KEY is not set")) == 1
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await eventually(alice.is_ready, "alice is on her pod again")
        await burst(alice, 6)
        assert len(cloud.sim.pods) == 1
        [pod] = cloud.sim.pods.values()
        assert len(pod.comfy.accepted) == 6


async def test_after_kill_nine_while_the_pod_boots_the_same_pod_is_taken_over(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.delays = cloud.sim.delays.model_copy(update={"app_ready_s": 3})
    async with start_gateway(**cloud.settings(duty)) as gateway:
        await burst(Person(http, gateway.url))
        await gateway.wait_for_line("creating -> booting")
        assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    async with start_gateway(**cloud.settings(duty)) as gateway:
        await eventually(Person(http, gateway.url).is_ready, "alice is on the pod of the first life")
        assert len(cloud.sim.pods) == 1


async def test_terminate_on_exit_ends_our_pods_and_no_others(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty, RUNPOD_TERMINATE_ON_EXIT="1")) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await eventually(alice.is_ready, "alice is on her pod")
        assert await gateway.stop() == 0
    assert cloud.sim.living() == []


async def test_capacity_is_sought_further_down_the_list(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.faults.add(Fault(operation="create", kind="capacity", gpu=GPU, times=None))
    settings = cloud.settings(duty, RUNPOD_GPU_TYPE_ID=f"{GPU},NVIDIA L40S")
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await eventually(alice.is_ready, "alice is on a pod of the second choice")
        [pod] = cloud.sim.living()
        assert pod.order.gpu is not None
        assert pod.order.gpu.id == "NVIDIA L40S"


async def test_a_create_that_answers_500_but_made_a_pod_is_found_by_name(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.faults.add(Fault(operation="create", kind="commit_error"))
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await eventually(alice.is_ready, "alice is on the pod that was made all the same")
        assert len(cloud.sim.living()) == 1


async def test_a_swallowed_termination_is_repeated_until_the_pod_is_gone(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.faults.add(Fault(operation="terminate", kind="swallow", times=2))
    settings = cloud.settings(duty, RUNPOD_TELEMETRY_IDLE_S="1", RUNPOD_TELEMETRY_POLL_S="0.3")
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await gateway.wait_for_line("terminating -> shared", within_s=40)
        assert cloud.sim.living() == []
        assert cloud.sim.calls["terminate"] >= 3


async def test_a_pod_that_never_answers_is_ended_and_the_user_stays_on_duty(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.delays = cloud.sim.delays.model_copy(update={"app_ready_s": 3600})
    async with start_gateway(**cloud.settings(duty, RUNPOD_STARTUP_TIMEOUT_S="1.5")) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await gateway.wait_for_line("booting -> abandoning.*not ready")
        await gateway.wait_for_line("abandoning -> cooling")
        assert cloud.sim.living() == []
        assert (await alice.prompt()).headers["X-Comfy-Session-Source"] == "duty"


async def test_a_pod_without_an_agent_is_used_with_a_warning_and_bounded_by_the_idle_timeout(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.delays = cloud.sim.delays.model_copy(update={"agent_ready_s": 3600})
    settings = cloud.settings(duty, RUNPOD_IDLE_TIMEOUT_S="2", RUNPOD_AGENT_WAIT_S="1")
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await gateway.wait_for_line("used without telemetry")
        await gateway.wait_for_line("no telemetry and no work")
        await eventually(lambda: not cloud.sim.living(), "the pod without an agent is gone")


async def test_a_pod_that_vanishes_gives_the_user_back_to_duty(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await burst(alice)
        await eventually(alice.is_ready, "alice is on her pod")
        [pod] = cloud.sim.living()
        cloud.sim.vanish(pod.id)
        await gateway.wait_for_line("ready -> terminating")
        assert (await alice.prompt()).headers["X-Comfy-Session-Source"] == "duty"


async def test_pods_with_other_names_are_never_touched(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    names = ["comfy-gwx-a1-b2", "comfy-gw-eu-a1-b2", "somebody", "comfy-gw-a1"]
    for name in names:
        cloud.sim.create(PodOrder(name=name))
    stray = cloud.sim.create(PodOrder(name="comfy-gw-a1-b2"))
    settings = cloud.settings(duty, RUNPOD_TELEMETRY_IDLE_S="2", RUNPOD_TELEMETRY_POLL_S="0.5")
    async with start_gateway(**settings) as gateway:
        await gateway.wait_for_line("pod comfy-gw-a1-b2 belongs to no session")
        await eventually(lambda: stray not in cloud.sim.living(), "the stray pod of ours is gone")
    assert sorted(pod.name for pod in cloud.sim.living()) == sorted(names)
