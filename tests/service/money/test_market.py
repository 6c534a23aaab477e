"""What is learnt from orders and starts, by everybody."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.core.money.profiles import Profile
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import Candidate
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create
from tests.service.world import ALICE, BOB, World, with_rules

HERD = [UserId(IdKind.NAMED, f"user{number}") for number in range(20)]


def gpus(world: World) -> list[str]:
    """GPU types of all orders, in order."""
    return [order.candidate.gpu_type for order in world.cloud.orders]


async def test_of_a_herd_that_bursts_in_one_second_a_few_start_and_the_others_stay_on_duty(
    clock: FakeClock,
) -> None:
    world = World(clock, rules=with_rules(caps=Caps(100, 1000.0), market=MarketLimits(max_starting=4)))
    world.run_loops()
    most_starting = 0
    for user in HERD:
        world.burst(user)
        await clock.advance(0.05)
        most_starting = max(most_starting, len(world.cloud.living()))
    assert most_starting == 4
    # Whoever goes on working gets a pod when it is their turn.
    for _ in range(10):
        for user in HERD:
            world.prompts(user, 5 if world.state(user) is State.SHARED else 1)
            assert world.routes.current(user) is not None
        await clock.advance(60)
    assert len(world.routes.privates()) == 20
    assert len(world.cloud.orders) == 20
    await world.stop()


async def test_a_place_that_refused_one_user_is_not_asked_for_the_next(world: World) -> None:
    world.cloud.creates.append(Create.CAPACITY)
    await world.clock.advance(1)
    world.burst(ALICE)
    await world.clock.settle()
    world.burst(BOB)
    await world.clock.settle()
    assert gpus(world) == ["RTX 4090", "A100", "A100"]


async def test_it_is_asked_again_when_that_was_a_while_ago(world: World) -> None:
    world.cloud.creates.append(Create.CAPACITY)
    world.burst(ALICE)
    await world.clock.advance(30)
    world.burst(BOB)
    await world.clock.settle()
    assert gpus(world) == ["RTX 4090", "A100", "RTX 4090"]


async def test_orders_at_the_same_time_learn_of_one_anothers_refusals(clock: FakeClock) -> None:
    world = World(clock)
    world.cloud.create_s = 2
    world.cloud.creates.extend([Create.CAPACITY] * 2)
    world.burst(ALICE)
    await clock.advance(1)
    world.cloud.prices["RTX 4090"] = 0.7
    world.burst(BOB)  # asks the same place before it is known that it refuses
    await clock.advance(10)
    assert gpus(world) == ["RTX 4090", "RTX 4090", "A100", "A100"]
    await world.stop()


async def test_after_a_start_that_failed_another_place_is_asked_first(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.COOLING)
    world.servers.usual.boot_s = 40
    await world.until(State.SHARED)
    await world.ready()
    assert gpus(world) == ["RTX 4090", "A100"]


async def test_one_order_asks_no_more_places_than_it_may(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    many = tuple(Candidate(f"GPU {number}", "SECURE") for number in range(9))
    world = World(clock, rules=with_rules(candidates=many, market=MarketLimits(max_attempts=3)))
    world.cloud.creates.extend([Create.CAPACITY] * 9)
    world.burst()
    await world.until(State.COOLING)
    assert gpus(world) == ["GPU 0", "GPU 1", "GPU 2"]
    assert "3 were asked, which is the most" in caplog.text
    await world.stop()


async def test_starts_that_fail_in_a_row_stop_all_buying_until_one_succeeds(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(clock, rules=with_rules(market=MarketLimits(breaker_failures=3, breaker_open_s=300)))
    world.run_loops()
    world.servers.usual.boot_s = 10_000
    for user in HERD[:3]:
        world.burst(user)
    for user in HERD[:3]:
        await world.until(State.COOLING, user)
    assert "3 starts in a row have failed; no pod is bought for 300 s" in caplog.text
    ordered = len(world.cloud.orders)

    for user in HERD[3:6]:
        world.burst(user)
        assert world.state(user) is State.SHARED
        assert world.routes.current(user) is not None
    world.servers.usual.boot_s = 40
    await clock.advance(300)
    for user in HERD[3:6]:
        world.burst(user)
    await clock.advance(1)
    assert len(world.cloud.orders) == ordered + 1
    await world.until(State.READY, HERD[3])
    for user in HERD[4:6]:
        await world.ready(user)
    await world.stop()


async def test_a_key_that_is_refused_is_not_tried_by_everybody_for_ever(clock: FakeClock) -> None:
    world = World(clock)
    world.cloud.creates.extend([Create.UNAUTHORIZED] * 20)
    for user in HERD:
        world.burst(user)
        await clock.settle()
    assert len(world.cloud.orders) == 5
    await world.stop()


async def test_a_want_of_machines_stops_nobody(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(market=MarketLimits(refusal_memory_s=0)))
    world.cloud.creates.extend([Create.CAPACITY] * 2 * 10)
    for user in HERD[:10]:
        world.burst(user)
        await clock.settle()
        assert world.events(user)[-1] is Event.REFUSED
    world.burst(HERD[10])
    await clock.settle()
    assert world.state(HERD[10]) is State.BOOTING
    await world.stop()


async def test_a_pod_that_exits_at_once_is_ended_within_a_tick_and_bought_elsewhere(world: World) -> None:
    world.run_loops()
    world.burst()
    await world.until(State.BOOTING)
    world.cloud.exit(world.pod().id)
    assert await world.until(State.COOLING) <= world.rules.reconcile_s + 5
    assert not world.cloud.living()
    await world.until(State.SHARED)
    await world.ready()
    assert gpus(world) == ["RTX 4090", "A100"]


async def test_a_pod_that_is_on_no_machine_is_given_up_before_its_time_and_bought_elsewhere(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.run_loops()
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.BOOTING)
    world.pod().is_placed = False
    took_s = await world.until(State.COOLING)
    assert took_s < world.rules.no_machine_s + 2 * world.rules.reconcile_s + 5 < world.rules.startup_timeout_s
    assert "the cloud has put it on no machine for" in caplog.text
    world.servers.usual.boot_s = 40
    await world.until(State.SHARED)
    await world.ready()
    assert gpus(world) == ["RTX 4090", "A100"]


async def test_a_container_that_comes_up_late_is_waited_for(world: World) -> None:
    world.run_loops()
    world.servers.usual.boot_s = 450
    world.burst()
    await world.until(State.BOOTING)
    world.pod().up_s = 340
    await world.until(State.READY)
    assert len(world.cloud.orders) == 1


async def test_lists_that_fail_give_up_no_pod(world: World) -> None:
    world.run_loops()
    world.servers.usual.boot_s = 300
    world.burst()
    await world.until(State.BOOTING)
    world.pod().is_placed = False
    await world.clock.advance(40)
    world.cloud.is_list_failing = True
    await world.until(State.READY)
    assert len(world.cloud.orders) == 1


H100 = Candidate("H100", "SECURE", max_usd_per_hour=3.0)
BIG = Profile("big", (H100, Candidate("A100", "SECURE")), users=frozenset({"alice"}))
SMALL = Profile("small", (Candidate("A5000", "SECURE"),), on_request=True)


async def test_a_place_over_its_ceiling_leads_to_the_next(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(clock, rules=with_rules(candidates=BIG.candidates))
    world.cloud.prices["H100"] = 3.99
    await world.ready()
    assert gpus(world) == ["A100"]
    await world.stop()


async def test_no_pod_is_dearer_than_any_may_be(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(clock, rules=with_rules(max_usd_per_hour=0.4))
    world.burst()
    await world.until(State.COOLING)
    assert not world.cloud.orders
    assert "it costs $0.50 an hour and RUNPOD_MAX_USD_PER_HOUR is 0.4" in caplog.text
    await world.stop()


async def test_a_pod_is_bought_by_the_profile_of_its_user_or_of_their_last_prompt(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(clock, rules=with_rules(profiles=(BIG, SMALL)))
    carol = UserId(IdKind.NAMED, "carol")
    for user, wish in [(ALICE, None), (BOB, "big"), (carol, "small")]:
        for _ in range(5):
            world.bursts.prompt_accepted(user, wish=wish)
        await world.until(State.READY, user)
    assert gpus(world) == ["H100", "RTX 4090", "A5000"]
    assert [line for line in caplog.messages if "profile" in line] == [
        "RunPod session named:bob: profile 'big' is not theirs or is none"
    ]
    await world.stop()


async def test_what_the_last_prompt_asked_for_counts(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(profiles=(SMALL,)))
    for wish in ["small"] * 4 + [None]:
        world.bursts.prompt_accepted(ALICE, wish=wish)
    await world.until(State.READY)
    assert gpus(world) == ["RTX 4090"]
    await world.stop()
