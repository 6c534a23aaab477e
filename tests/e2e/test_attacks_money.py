"""Attempts to make the gateway pay twice, or for ever: killed anywhere, with a cloud that lies or says nothing."""

import asyncio
import contextlib
import itertools
import shutil
import signal
from pathlib import Path

import aiohttp
import pytest

from simulators.runpod import Fault, RunPodSimulator
from simulators.runpod.faults import Kind
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.world import Duty, Person, eventually, picture

SHORT = {"RUNPOD_TELEMETRY_IDLE_S": "2", "RUNPOD_TELEMETRY_POLL_S": "0.3"}


def most_at_once(cloud: RunPodSimulator, user: str = "alice") -> int:
    """How many pods of one user were alive together at the worst moment of the whole test."""
    changes: list[tuple[float, int]] = []
    for pod in cloud.pods.values():
        if pod.name.startswith(f"comfy-gw-{user}"):
            changes.append((pod.created_at_s, 1))
            if pod.ended_at_s is not None:
                changes.append((pod.ended_at_s, -1))
    return max(itertools.accumulate(step for _, step in sorted(changes)), default=0)


async def press_until(
    gateway: GatewayProcess, person: Person, pattern: str, *, within_s: float = 30.0
) -> str:
    """Burst again and again, as an impatient user does, until the log has the line."""
    waiting = asyncio.get_running_loop().create_task(gateway.wait_for_line(pattern, within_s=within_s))
    try:
        while not waiting.done():
            with contextlib.suppress(aiohttp.ClientError):
                for _ in range(5):
                    await person.prompt()
            await asyncio.wait({waiting}, timeout=0.3)
    finally:
        if not waiting.done():
            waiting.cancel()
    return await waiting


@pytest.mark.long
async def test_killed_at_each_step_of_a_life_it_never_has_two_pods_of_a_user_and_leaves_none(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    settings = cloud.settings(duty, **SHORT)
    steps = [
        "shared -> requested",
        "requested -> creating",
        "creating -> booting",
        "booting -> verifying",
        "(verifying|checking) -> ready",
    ]
    for step in steps:
        async with start_gateway(**settings) as gateway:
            await press_until(gateway, Person(http, gateway.url), step)
            assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url)
        await eventually(alice.is_ready, "alice is on a pod after all")
        [pod] = cloud.sim.living()
        before = len(pod.comfy.accepted)
        await alice.prompt()
        assert len(pod.comfy.accepted) == before + 1
    for step in ("ready -> draining", "(ready|draining) -> (terminating|draining)", "-> terminating"):
        async with start_gateway(**settings) as gateway:
            await gateway.wait_for_line(step)
            assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
        if not cloud.sim.living():
            break
    async with start_gateway(**settings) as gateway:
        await eventually(lambda: not cloud.sim.living(), "nothing costs money any more")
        alice = Person(http, gateway.url)
        await press_until(gateway, alice, "-> ready")
        assert len(cloud.sim.living()) == 1
    assert most_at_once(cloud.sim) == 1


async def test_a_pod_whose_gateway_lost_its_memory_ends_after_one_idle_window_and_not_before(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    settings = cloud.settings(duty, GATEWAY_SECRET="s" * 40, **SHORT)
    async with start_gateway(**settings) as gateway:
        await press_until(gateway, Person(http, gateway.url), "-> ready")
        assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    [old] = cloud.sim.living()
    await asyncio.to_thread(shutil.rmtree, tmp_path)
    await asyncio.to_thread(tmp_path.mkdir)
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url)
        assert not await alice.is_ready()
        await gateway.wait_for_line(f"pod {old.name} belongs to no session .unknown for")
        await eventually(lambda: old not in cloud.sim.living(), "the unknown pod is gone")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["http_error", "rate_limited", "hang", "null_data", "reset", "html"])
async def test_while_runpod_is_out_of_its_mind_users_work_on_and_nothing_is_bought_twice(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, kind: Kind
) -> None:
    settings = cloud.settings(duty, RUNPOD_REQUEST_TIMEOUT_S="1", **SHORT)
    async with start_gateway(**settings) as gateway:
        alice, bob = Person(http, gateway.url), Person(http, gateway.url, name="bob")
        await press_until(gateway, alice, "-> ready")
        cloud.sim.faults.add(Fault(operation="any", kind=kind, status=500, seconds=60, times=None))
        for _ in range(10):
            for person, source in ((alice, "private"), (bob, "duty")):
                answer = await person.prompt()
                assert answer.status == 200
                assert answer.headers["X-Comfy-Session-Source"] == source
            await asyncio.sleep(0.3)
        assert len(cloud.sim.living()) == 1
        assert await alice.is_ready()
        await gateway.wait_for_line("named:alice: ready -> draining")
        assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    async with start_gateway(**settings) as gateway:
        alice, bob = Person(http, gateway.url), Person(http, gateway.url, name="bob")
        for _ in range(6):
            assert (await alice.prompt()).status == 200
            assert (await bob.prompt()).status == 200
        cloud.sim.faults.clear()
        await press_until(gateway, bob, "named:bob: verifying -> ready", within_s=60)
        await eventually(
            lambda: (
                not [pod for pod in cloud.sim.living() if "alice" in pod.name] or most_at_once(cloud.sim) > 1
            ),
            "alice's first pod is gone",
            within_s=60,
        )
    assert most_at_once(cloud.sim) == 1
    assert most_at_once(cloud.sim, "bob") == 1


@pytest.mark.long
async def test_terminations_that_hang_hold_up_neither_users_nor_the_gateways_end(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    settings = cloud.settings(duty, RUNPOD_REQUEST_TIMEOUT_S="1", **SHORT)
    cloud.sim.faults.add(Fault(operation="terminate", kind="hang", seconds=600, times=4))
    async with start_gateway(**settings) as gateway:
        people = [Person(http, gateway.url, name=f"user{n}") for n in range(4)]
        for person in people:
            await press_until(gateway, person, f"named:{person.name}: verifying -> ready")
        for person in people:
            await gateway.wait_for_line(f"named:{person.name}: draining -> terminating")
        for person in people:
            assert (await person.prompt()).headers["X-Comfy-Session-Source"] == "duty"
        await eventually(lambda: not cloud.sim.living(), "all pods are gone", within_s=60)


async def test_sigterm_in_the_middle_of_a_create_finds_the_pod_at_the_next_start(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.delays = cloud.sim.delays.model_copy(update={"create_s": 1.5})
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await asyncio.gather(*(alice.prompt(picture(seed)) for seed in range(5)))
        await eventually(lambda: cloud.sim.calls["create"] == 1, "the order is on its way")
        assert await gateway.stop() == 0
        assert gateway.lines_with("may live on")
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        await press_until(gateway, alice, "-> ready")
        assert await alice.is_ready()
    assert len(cloud.sim.pods) == 1


async def test_two_bursts_through_two_tabs_in_the_same_moment_buy_one_pod(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        tabs = [Person(http, gateway.url, client_id=f"tab{n}") for n in range(2)]
        async with tabs[0].socket(), tabs[1].socket():
            answers = await asyncio.gather(*(tab.prompt(picture(n)) for n in range(8) for tab in tabs))
            assert {answer.status for answer in answers} == {200}
            await eventually(tabs[0].is_ready, "the user is on a pod")
            assert await tabs[1].is_ready()
    assert len(cloud.sim.pods) == 1
