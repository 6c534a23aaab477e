"""Pods end, without an error to anybody, when the day's budget is spent or their time is over."""

import logging
from datetime import UTC

import pytest

from comfy_gateway.core.life.session import State
from comfy_gateway.core.money import hours
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.budget import Budget
from comfy_gateway.core.money.hours import Hours
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.core.people.users import IdKind, UserId
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
    assert "not known" in (await world.spending.why_not(BOB, 0.5, {}) or "")
    world.memory.is_down = False
    assert await world.spending.why_not(BOB, 0.5, {}) is None
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


async def test_a_team_is_drained_when_it_has_spent_its_day_and_others_go_on(clock: FakeClock) -> None:
    teams = {"film": frozenset({ALICE.key, BOB.key})}
    world = world_with(clock, Budget(team_daily_usd={"film": 1.0}, teams=teams))
    carol = UserId(IdKind.NAMED, "carol")
    for user in (ALICE, BOB, carol):
        await world.ready(user)
    await work(world, 1.2, ALICE, BOB, carol)
    assert list(world.routes.privates()) == [carol]
    world.burst()
    await world.clock.advance(120)
    assert len(world.cloud.living()) == 1
    await world.stop()


async def test_orders_at_one_time_reserve_what_they_cost_at_least(clock: FakeClock) -> None:
    """Ten minutes of a pod are 8.3 cents: of the twenty that are wanted at once twelve are within a dollar."""
    rules = with_rules(
        budget=Budget(daily_usd=1.0), market=MarketLimits(max_starting=0), caps=Caps(100, 1000.0)
    )
    world = World(clock, rules=rules)
    world.cloud.create_s, world.cloud.call_s, world.memory.call_s = 3, 0.5, 0.2
    for number in range(20):
        world.burst(UserId(IdKind.NAMED, f"user{number}"))
    await clock.advance(30)
    assert len(world.cloud.living()) == 12
    await world.stop()


async def test_out_of_hours_pods_are_drained_and_none_is_bought(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text = "daily 08:00-13:00"  # it is noon
    world = World(clock, rules=with_rules(hours=Hours(hours.parse(text), UTC, text)))
    world.run_loops()
    await world.ready()
    await work(world, 0.95, ALICE)
    assert world.state() is State.READY
    await work(world, 0.2, ALICE)
    assert not world.cloud.living()
    assert world.state() is State.SHARED
    assert "RUNPOD_HOURS is daily 08:00-13:00" in caplog.text
    await world.clock.advance(19 * HOUR_S)
    await world.ready()
    await world.stop()


async def test_a_session_that_was_asked_for_before_the_hours_ended_buys_nothing(clock: FakeClock) -> None:
    text = "daily 08:00-12:01"
    world = World(clock, rules=with_rules(hours=Hours(hours.parse(text), UTC, text)))
    world.memory.call_s = 90
    world.burst()
    await world.until(State.COOLING)
    assert world.cloud.orders == []
    await world.stop()


async def test_a_pod_that_is_idle_is_kept_until_its_lease_is_over(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(min_lease_s=1800))
    pod = await world.ready()
    await world.until(State.SHARED, within_s=3000)
    assert pod.ended_s is not None
    assert 1800 <= pod.ended_s - pod.made_s <= 1800 + 120
    await world.stop()


async def test_a_lease_holds_up_no_budget(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(min_lease_s=7200, budget=Budget(user_daily_usd=1.0)))
    world.run_loops()
    pod = await world.ready()
    world.cloud.find(pod.id).cost_per_hour_usd = 2.0  # dearer than it was said
    await work(world, 1, ALICE)
    assert pod.ended_s is not None
    assert pod.ended_s - pod.made_s < 2400
    await world.stop()
