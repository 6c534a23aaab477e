"""Pods that cost money for nobody: after faults of the cloud, restarts, and clocks that jump."""

from datetime import timedelta

import pytest

from comfy_gateway.core.life.session import State
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create
from tests.service.world import ALICE, RULES, TAG, World

UNKNOWN = f"{TAG}-nobody-a1"


@pytest.mark.parametrize("lying_s", range(560, 660, 20))
async def test_a_double_ends_within_a_tick_once_terminations_work_again(world: World, lying_s: int) -> None:
    world.run_loops()
    world.cloud.creates.append(Create.DOUBLE)
    world.cloud.swallowed_terminations = 10**6
    await world.ready()
    for _ in range(lying_s):
        world.prompts(ALICE)
        await world.clock.advance(1)
    world.cloud.swallowed_terminations = 0
    took_s = await world.clock.advance_until(lambda: len(world.cloud.living()) == 1, within_s=300)
    assert took_s <= RULES.reconcile_s, took_s


async def test_an_unknown_pod_ends_after_one_idle_window_though_the_gateway_restarts_meanwhile(
    world: World,
) -> None:
    stray = world.cloud.make(UNKNOWN)
    world.run_loops()
    for _ in range(8):
        await world.clock.advance(300)
        await world.restart(with_loops=True)
    assert stray.ended_s is not None


async def test_a_clock_that_is_set_back_does_not_lengthen_a_boot(world: World, clock: FakeClock) -> None:
    world.servers.usual.is_healthy = False
    world.burst()
    await world.until(State.BOOTING)
    clock.set_wall(-timedelta(hours=1))
    await clock.advance(700)
    assert not world.cloud.living()


async def test_a_clock_that_is_set_forward_ends_no_boot(world: World, clock: FakeClock) -> None:
    world.burst()
    await world.until(State.BOOTING)
    await clock.advance(5)
    clock.set_wall(timedelta(hours=1))
    await world.until(State.READY, within_s=120)
    assert len(world.cloud.pods) == 1


@pytest.mark.parametrize("outcome", [Create.CAPACITY, Create.REFUSED, Create.NOTHING])
async def test_the_row_of_a_refused_attempt_is_closed(world: World, outcome: Create) -> None:
    world.cloud.creates.extend([outcome] * 2)
    world.burst()
    await world.until(State.COOLING)
    await world.until(State.SHARED)
    assert [row.ended_at is not None for row in world.memory.pods.values()] == [True]


async def test_a_pod_that_went_while_the_gateway_was_away_is_left_at_once(world: World) -> None:
    pod = await world.ready()
    await world.clock.advance(10)
    await world.stop()
    world.cloud.vanish(pod.id)
    await world.restart(with_loops=True)
    took_s = await world.until(State.SHARED)
    assert took_s <= RULES.reconcile_s, took_s


async def test_a_pod_that_exited_is_not_verified_by_its_probe_alone(world: World) -> None:
    pod = await world.ready()
    await world.clock.advance(10)
    await world.stop()
    world.cloud.vanish(pod.id)
    world.servers.clock = world.clock
    # A proxy that still answers for a pod that the account no longer has.
    world.servers._runs = lambda id_, boot_s: True  # type: ignore[method-assign]
    await world.restart(with_loops=True)
    await world.clock.advance(3)
    assert world.state() is not State.READY


async def test_a_pod_that_comes_back_as_a_stray_has_its_whole_grace_again(world: World) -> None:
    stray = world.cloud.make(UNKNOWN)
    world.run_loops()
    await world.clock.advance(RULES.idle.idle_s - 60)
    is_hidden, world.cloud.pods = world.cloud.pods, []
    await world.clock.advance(RULES.reconcile_s * 2)
    assert not world.memory.strays
    world.cloud.pods = is_hidden
    await world.clock.advance(120)
    assert stray.ended_s is None


async def test_the_first_sight_of_a_pod_that_has_ended_is_forgotten(world: World) -> None:
    world.cloud.make(UNKNOWN)
    world.run_loops()
    await world.clock.advance(RULES.reconcile_s)
    assert len(world.memory.strays) == 1
    await world.clock.advance(RULES.idle.idle_s + 60)
    assert not world.memory.strays
