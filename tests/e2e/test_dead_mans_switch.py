"""A gateway that is killed: its pods, whose agents are real processes, end themselves."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from simulators.runpod import Delays, RunPodSimulator
from simulators.runpod import serve as serve_cloud
from tests.conditions import wait_for
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture

LEASE_S, HARD_MAX_S = 4.0, 40.0
TERMS = {
    "POD_ENV_AGENT_LEASE_S": f"{LEASE_S:g}",
    "POD_ENV_AGENT_BOOT_GRACE_S": "20",
    "POD_ENV_AGENT_HARD_MAX_S": f"{HARD_MAX_S:g}",
    "POD_ENV_AGENT_QUEUE_SILENCE_S": "2",
    "RUNPOD_STARTUP_POLL_S": "0.3",
}


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    """The cloud itself ends no pod: only the agents in them do."""
    simulator = RunPodSimulator(
        api_key="test-key",
        delays=Delays(create_s=0.1, runtime_s=0.2, app_ready_s=0.6, agent_ready_s=0.4),
        agent="leased",
    )
    async with serve_cloud(simulator) as served:
        yield Cloud(simulator, served)


async def burst(person: Person) -> None:
    for _ in range(5):
        assert (await person.prompt()).status == 200
    await eventually(person.is_ready, f"{person.name} is on a pod", within_s=40)


@pytest.mark.long
async def test_pods_of_a_killed_gateway_end_themselves_and_those_of_a_living_one_do_not(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty, **TERMS)) as gateway:
        await burst(Person(http, gateway.url, "alice"))
        await burst(Person(http, gateway.url, "bob"))
        began_s = time.monotonic()
        while time.monotonic() - began_s < 4 * LEASE_S:
            assert len(cloud.sim.living()) == 2, "the gateway asks, so the lease is renewed"
            await asyncio.sleep(0.5)
        await gateway.stop(signal.SIGKILL)
        died_s = cloud.sim.clock.monotonic()
    await wait_for(lambda: not cloud.sim.living(), "both pods to end themselves", deadline_s=LEASE_S + 60)
    took_s = cloud.sim.clock.monotonic() - died_s
    assert LEASE_S - 1 <= took_s <= LEASE_S + 60
    print(f"both pods had ended {took_s:.1f} s after the gateway was killed (lease {LEASE_S:g} s)")
    ends = {pod.events[-1].what for pod in cloud.sim.pods.values()}
    assert ends == {"terminated"}


@pytest.mark.long
async def test_a_pod_of_a_killed_gateway_finishes_its_prompt_and_keeps_the_picture_to_the_hard_maximum(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty, **TERMS)) as gateway:
        alice = Person(http, gateway.url, "alice")
        await burst(alice)
        [pod] = cloud.sim.living()
        answer = await alice.prompt(picture(77, sleep_s=12, steps=12))
        assert answer.headers["X-Comfy-Session-Source"] == "private"

        async def computes() -> bool:
            return await cloud.sim.hosting.queue(pod) == (1, 0)

        await wait_for(computes, "the pod computes")
        await gateway.stop(signal.SIGKILL)
        died_s = cloud.sim.clock.monotonic()
    await wait_for(lambda: not cloud.sim.living(), "the pod to end itself", deadline_s=80)
    took_s = cloud.sim.clock.monotonic() - died_s
    print(f"the pod had ended {took_s:.1f} s after the gateway was killed (hard maximum {HARD_MAX_S:g} s)")
    # Nobody has fetched the picture, so only the hard maximum ends it. It counts from the last renewal.
    assert HARD_MAX_S - 2 <= took_s <= HARD_MAX_S + 60
