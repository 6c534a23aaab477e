"""From accepted prompts to a session."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.core.people.users import IdKind, UserId
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB, World, with_rules


async def test_forty_prompts_at_once_buy_one_pod(world: World) -> None:
    world.prompts(ALICE, 40)
    await world.until(State.READY)
    await world.clock.advance(60)
    assert len(world.cloud.orders) == 1
    assert len(world.cloud.pods) == 1


async def test_the_session_has_left_shared_before_anything_is_awaited(world: World) -> None:
    world.cloud.create_s = 5
    world.prompts(ALICE, 4)
    assert world.state() is State.SHARED
    world.prompts(ALICE, 1)
    assert world.state() is not State.SHARED


async def test_the_fifth_within_the_window_counts_and_not_the_fifth_ever(world: World) -> None:
    for _ in range(20):
        world.prompts(ALICE)
        await world.clock.advance(15.1)
    assert world.state() is State.SHARED
    world.prompts(ALICE, 2)
    assert world.state() is not State.SHARED


async def test_five_in_exactly_the_window_are_a_burst(world: World) -> None:
    for _ in range(4):
        world.prompts(ALICE)
        await world.clock.advance(15)
    world.prompts(ALICE)
    assert world.state() is not State.SHARED


async def test_prompts_that_were_answered_with_a_pod_do_not_earn_the_next_one(world: World) -> None:
    world.prompts(ALICE, 40)
    await world.until(State.READY)
    world.prompts(ALICE, 10)
    world.sessions.apply(ALICE, Event.VANISHED, "as a test wants it")
    world.sessions.apply(ALICE, Event.ENDED, "as a test wants it")
    world.prompts(ALICE, 4)
    assert world.state() is State.SHARED
    world.prompts(ALICE)
    assert world.state() is not State.SHARED


async def test_prompts_of_others_do_not_count(world: World) -> None:
    world.prompts(ALICE, 4)
    world.prompts(BOB, 4)
    assert world.state(ALICE) is world.state(BOB) is State.SHARED


async def test_a_socket_counts_only_where_the_threshold_is_zero(world: World, clock: FakeClock) -> None:
    for _ in range(10):
        world.bursts.seen(ALICE)
    assert world.state() is State.SHARED

    eager = World(clock, rules=with_rules(threshold_count=0))
    eager.bursts.seen(ALICE)
    assert eager.state() is not State.SHARED
    eager.prompts(BOB)
    assert eager.state(BOB) is not State.SHARED
    await eager.stop()


async def test_without_anywhere_to_buy_nothing_is_counted(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(candidates=(), threshold_count=0))
    world.prompts(ALICE, 40)
    world.bursts.seen(ALICE)
    assert world.state() is State.SHARED
    assert not world.bursts._windows


async def test_over_the_cap_users_stay_on_duty_with_one_line_each(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(clock, rules=with_rules(caps=Caps(20, 1000.0), market=MarketLimits(max_starting=0)))
    users = [UserId(IdKind.NAMED, f"user{number}") for number in range(100)]
    for _ in range(10):
        for user in users:
            world.prompts(user)
    await clock.advance(120)
    assert len(world.cloud.living()) == 20
    assert len(world.routes.privates()) == 20
    refused = [line for line in caplog.messages if "stays on duty" in line]
    assert len(refused) == 80
    assert all("20 private pods are in use and RUNPOD_MAX_ACTIVE_SESSIONS is 20" in line for line in refused)
    await world.stop()


async def test_a_place_that_becomes_free_is_given_to_the_next_burst(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(caps=Caps(1, 1000.0)))
    await world.ready(ALICE)
    world.burst(BOB)
    assert world.state(BOB) is State.SHARED
    await world.until(State.SHARED, ALICE)
    await world.ready(BOB)
    await world.stop()


async def test_a_budget_that_is_spent_refuses_before_anything_is_asked(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(clock, rules=with_rules(caps=Caps(10, 0.9)))
    await world.ready(ALICE)
    world.pod(ALICE).cost_per_hour_usd = 1.0
    await world.watch.tick()
    world.burst(BOB)
    assert world.state(BOB) is State.SHARED
    assert "BUDGET_HOURLY_USD is 0.9" in caplog.text
    await world.stop()


async def test_the_cause_in_the_log_says_what_the_burst_was(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.burst()
    assert "shared -> requested, pod none, after 0.0 s: 5 prompts within 60 s" in caplog.text


async def test_whom_it_was_told_is_bounded_too(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    world = World(clock, rules=with_rules(caps=Caps(0, 1000.0)), max_users=2)
    for name in ("a", "b", "a", "b", "c", "c", "a"):
        world.burst(UserId(IdKind.NAMED, name))
    told = [line.split()[2] for line in caplog.messages]
    assert told == ["named:a:", "named:b:", "named:c:", "named:a:"]
    await world.stop()


async def test_what_is_remembered_of_users_is_bounded(clock: FakeClock) -> None:
    world = World(clock, max_users=2)
    first, second, third = (UserId(IdKind.NAMED, name) for name in ("first", "second", "third"))
    world.prompts(first, 3)
    world.prompts(second, 3)
    world.prompts(first)  # the second is the one who was not seen for longest now
    world.prompts(third, 3)
    world.prompts(second, 2)
    assert world.state(second) is State.SHARED
    world.prompts(third, 2)
    assert world.state(third) is not State.SHARED
    await world.stop()
