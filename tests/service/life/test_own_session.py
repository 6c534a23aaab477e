"""A user's own session: told, promoted, kept, given back."""

from comfy_gateway.core.life import own_pod
from comfy_gateway.core.life.own_pod import Can, Policy
from comfy_gateway.core.life.session import State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.budget import Budget
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Source
from tests.fakes.clock import FakeClock
from tests.service.own_stand import LIBERAL, own_session
from tests.service.world import ALICE, BOB, World, with_rules


async def test_on_duty_one_is_told_the_count_toward_a_pod_and_who_is_ahead(world: World) -> None:
    own = own_session(world)
    home = world.pool.home.id
    for number, user in enumerate((BOB, BOB, ALICE)):
        world.ledger.accept(PromptRecord(f"p{number}", user.key, "sid", home, number=number))
    world.prompts(ALICE, 3)
    told = own.of(ALICE)
    assert (told.state, told.source, told.gpu) == (State.SHARED, Source.DUTY, None)
    assert (told.prompts_in_window, told.threshold, told.ahead) == (3, 5, 2)
    assert (told.eta, told.idle_ends_in_s) == (None, None)
    assert told.can == Can(promote=True)
    await world.clock.advance(61)
    assert own.of(ALICE).prompts_in_window == 0


async def test_asking_for_a_pod_buys_one_and_asking_again_none(world: World) -> None:
    own = own_session(world)
    assert own.promote(ALICE) is None
    assert own.promote(ALICE) is own_pod.HAS_POD
    await world.until(State.READY)
    assert own.promote(ALICE) is own_pod.HAS_POD
    told = own.of(ALICE)
    assert (told.source, told.gpu, told.ahead) == (Source.PRIVATE, "RTX 4090", None)
    assert told.can == Can(keep=True, give_back=True)
    assert len(world.cloud.orders) == 1
    assert own.of(BOB).state is State.SHARED


async def test_asking_for_a_pod_holds_to_policy_and_caps(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(caps=Caps(max_active_sessions=1, budget_hourly_usd=20)))
    try:
        assert own_session(world, Policy()).promote(ALICE) is own_pod.MAY_NOT_PROMOTE
        own = own_session(world)
        assert own.promote(BOB) is None
        assert own.promote(ALICE) is own_pod.NONE_FREE
        assert world.state() is State.SHARED
    finally:
        await world.stop()


async def test_asking_for_a_pod_holds_to_the_budget_of_the_day(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(budget=Budget(user_daily_usd=0.0001)))
    try:
        assert own_session(world).promote(ALICE) is None
        await world.until(State.COOLING)
        assert not world.cloud.orders
    finally:
        await world.stop()


async def test_the_badge_counts_down_to_the_very_second_in_which_an_idle_pod_ends(world: World) -> None:
    own = own_session(world)
    await world.ready()
    await world.clock.advance(200)
    left_s = own.of(ALICE).idle_ends_in_s
    assert left_s is not None
    assert await world.until(State.DRAINING) <= left_s + world.rules.telemetry_poll_s
    assert left_s <= 600 - 190


async def test_a_busy_pod_has_no_end(world: World) -> None:
    own = own_session(world)
    await world.ready()
    world.prompts(ALICE, 1, is_done=False)
    await world.clock.advance(3)
    assert own.of(ALICE).idle_ends_in_s is None


async def test_a_kept_pod_lives_half_an_hour_longer_and_only_so_often(world: World) -> None:
    own = own_session(world, Policy(keep_times=2))
    await world.ready()
    assert own.keep(ALICE) is None
    assert own.of(ALICE).idle_ends_in_s == own_pod.KEEP_S
    await world.clock.advance(1500)
    assert world.state() is State.READY
    assert own.keep(ALICE) is None
    assert own.keep(ALICE) is own_pod.KEPT_ENOUGH
    assert not own.of(ALICE).can.keep
    assert own_pod.KEEP_S - 60 <= await world.until(State.DRAINING, within_s=4000) <= own_pod.KEEP_S + 61
    assert own.keep(ALICE) is own_pod.NOT_READY


async def test_keeping_moves_no_longest_life(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(budget=Budget(max_lifetime_s=900)))
    own = own_session(world, Policy(keep_times=9, max_lifetime_s=900))
    try:
        world.run_loops()
        await world.ready()
        assert own.keep(ALICE) is None
        left_s = own.of(ALICE).idle_ends_in_s
        assert left_s is not None
        assert left_s <= 900
        assert await world.until(State.DRAINING) <= 961
    finally:
        await world.stop()


async def test_the_next_pod_of_a_user_is_kept_as_often_again(world: World) -> None:
    own = own_session(world, Policy(may_promote=True, keep_times=1))
    for _ in range(2):
        assert own.promote(ALICE) is None
        await world.until(State.READY)
        assert own.keep(ALICE) is None
        assert own.keep(ALICE) is own_pod.KEPT_ENOUGH
        name = world.pod().name
        assert own.give_back(ALICE) is None
        await world.until(State.SHARED)
        assert world.keeping.times(name) == 0


async def test_giving_back_drains_and_leaves_others_alone(world: World) -> None:
    own = own_session(world)
    await world.ready()
    await world.ready(BOB)
    running = world.prompts(ALICE, 1, is_done=False)
    assert own.give_back(ALICE) is None
    await world.until(State.DRAINING, step_s=0.1)
    assert own.give_back(ALICE) is own_pod.NOT_READY
    assert world.ledger.find(running[0]) is not None
    await world.until(State.SHARED)
    assert world.state(BOB) is State.READY
    assert own.give_back(ALICE) is own_pod.NOT_READY


async def test_a_pod_that_is_being_ordered_can_be_given_back(world: World) -> None:
    own = own_session(world)
    world.cloud.create_s = 5
    assert own.promote(ALICE) is None
    await world.until(State.CREATING, step_s=0.1)
    assert own.give_back(ALICE) is None
    await world.until(State.SHARED)
    assert not world.cloud.living()


async def test_what_pods_took_before_tells_what_the_next_one_takes(world: World) -> None:
    own = own_session(world, LIBERAL)
    took_s = []
    for number in range(6):
        assert own.promote(ALICE) is None
        assert (own.of(ALICE).eta is None) == (number < 5)
        took_s.append(await world.until(State.READY))
        own.give_back(ALICE)
        await world.until(State.SHARED)
    assert own.promote(ALICE) is None
    await world.until(State.BOOTING)
    eta = own.of(ALICE).eta
    assert eta is not None
    assert 0 < eta.p50 <= eta.p90 <= max(took_s) + 1
