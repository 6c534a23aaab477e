"""Pods end, without an error to anybody, when the day's budget is spent or their time is over."""

import logging

import pytest

from comfy_gateway.core.budget import Budget
from comfy_gateway.core.session import State
from comfy_gateway.core.users import UserId
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB, World, with_rules

HOUR_S = 3600


def world_with(clock: FakeClock, budget: Budget) -> World:
    """Every pod costs half a dollar an hour."""
    world = World(clock, rules=with_rules(budget=budget))
    world.run_loops()
    return world


async def work(world: World, hours: float, *users: UserId) -> None:
    """Prompts all the time, so that no pod is idle."""
    for _ in range(int(hours * 60)):
        for user in users or (ALICE, BOB):
            world.prompts(user)
        await world.clock.advance(60)


async def test_who_has_spent_the_day_is_drained_to_duty_and_buys_no_more_today(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = world_with(clock, Budget(user_daily_usd=1.0))
    await world.ready()
    await world.ready(BOB)
    await work(world, 1.5, ALICE)
    assert world.state() is State.READY
    await work(world, 1, ALICE)
    assert [pod for pod in world.cloud.living() if "alice" in pod.name] == []
    assert world.routes.private(ALICE) is None
    world.burst()
    await world.clock.advance(120)
    assert [pod for pod in world.cloud.living() if "alice" in pod.name] == []
    assert "BUDGET_USER_DAILY_USD is 1" in caplog.text
    assert world.cloud.spent_usd() < 1.0 + 0.5 + 0.2, "Alice's dollar, Bob's idle window, and a minute or two"
    await world.stop()


async def test_a_new_day_has_a_new_budget(clock: FakeClock) -> None:
    world = world_with(clock, Budget(user_daily_usd=1.0))  # it is noon
    await world.ready()
    await work(world, 3, ALICE)
    assert not world.cloud.living()
    await world.clock.advance(10 * HOUR_S)
    await world.ready()
    await world.stop()


async def test_the_budget_of_all_bounds_everybody_also_after_a_restart(clock: FakeClock) -> None:
    world = world_with(clock, Budget(daily_usd=1.0))
    await world.ready()
    await world.ready(BOB)
    await work(world, 0.5)
    await world.restart(with_loops=True)
    await work(world, 1)
    assert not world.cloud.living()
    assert world.cloud.spent_usd() < 1.1
    await world.stop()


async def test_somebody_is_told_once_when_most_is_spent(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    world = world_with(clock, Budget(user_daily_usd=1.0))
    await world.ready()
    await work(world, 1.8, ALICE)
    assert caplog.text.count("were spent today") == 1
    assert world.state() is State.READY
    await world.stop()


async def test_a_pod_has_a_longest_life_however_busy_it_is(clock: FakeClock) -> None:
    world = world_with(clock, Budget(max_lifetime_s=HOUR_S))
    pod = await world.ready()
    await work(world, 1.2, ALICE)
    assert pod.ended_s is not None
    assert HOUR_S <= pod.ended_s - pod.made_s < HOUR_S + 300
    await world.stop()


async def test_without_knowing_what_was_spent_nothing_is_bought_and_nothing_ended(clock: FakeClock) -> None:
    world = world_with(clock, Budget(user_daily_usd=100.0))
    await world.ready()
    world.memory.is_down = True
    await work(world, 0.1, ALICE)
    assert world.state() is State.READY
    assert "not known" in (await world.spending.why_not(BOB, 0.5) or "")
    world.memory.is_down = False
    assert await world.spending.why_not(BOB, 0.5) is None
    await world.stop()


async def test_the_pod_of_a_budget_that_is_spent_while_it_boots_is_ended(clock: FakeClock) -> None:
    world = world_with(clock, Budget(daily_usd=0.1))
    world.servers.usual.is_healthy = False
    world.burst()
    await world.until(State.BOOTING)
    pod = world.pod()
    await world.clock.advance(HOUR_S)
    assert pod.ended_s is not None
    await world.stop()
