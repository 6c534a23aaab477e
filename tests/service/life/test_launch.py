"""Buying a pod."""

import logging
from datetime import UTC, datetime

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.ports import Candidate
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create
from tests.service.world import ALICE, BOB, KEYS, World, with_rules


async def test_the_attempt_is_stored_before_the_order_goes_out(world: World) -> None:
    world.cloud.create_s = 10
    world.burst()
    await world.clock.settle()
    stored = world.memory.rows[ALICE]
    assert stored.state is State.CREATING
    assert stored.pod is not None
    assert world.names.is_ours(stored.pod.name)
    assert not world.cloud.orders


async def test_the_pods_id_is_stored_before_its_boot_is_waited_for(world: World) -> None:
    world.burst()
    await world.clock.settle()
    assert world.state() is State.BOOTING
    stored = world.memory.rows[ALICE].pod
    assert stored is not None
    assert stored.pod_id == world.pod().id


async def test_an_order_brings_the_pods_own_tokens_and_the_further_environment(world: World) -> None:
    await world.ready()
    [order] = world.cloud.orders
    assert order.env == {
        "HF_TOKEN": "secret",
        "AUTH_TOKEN": KEYS.agent_token(order.name),
        "GATEWAY_POD_TOKEN": KEYS.pod_token(order.name),
    }
    assert "secret" not in repr(order)


async def test_the_environment_cannot_replace_the_pods_tokens(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(pod_env={"AUTH_TOKEN": "weak"}))
    await world.ready()
    assert world.cloud.orders[0].env["AUTH_TOKEN"] == KEYS.agent_token(world.pod().name)
    await world.stop()


async def test_what_a_pod_is_and_costs_is_kept(world: World) -> None:
    world.cloud.prices["RTX 4090"] = 0.69
    world.burst()
    await world.clock.settle()
    kept = world.sessions.get(ALICE).pod
    assert kept is not None
    assert (kept.gpu_type, kept.cost_per_hour_usd) == ("RTX 4090", 0.69)
    assert kept.ordered_at == world.clock.now()


async def test_a_refused_key_is_not_tried_elsewhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.cloud.creates.append(Create.UNAUTHORIZED)
    world.burst()
    await world.until(State.COOLING)
    assert len(world.cloud.orders) == 1
    assert world.events()[-1] is Event.REFUSED
    assert "the key is refused" in caplog.text


async def test_a_candidate_that_is_refused_for_good_does_not_hide_the_next(world: World) -> None:
    world.cloud.creates.append(Create.REFUSED)
    await world.ready()
    assert [order.candidate.gpu_type for order in world.cloud.orders] == ["RTX 4090", "A100"]


async def test_no_capacity_anywhere_is_told_for_each_candidate(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.cloud.creates.extend([Create.CAPACITY] * 2)
    world.burst()
    await world.until(State.COOLING)
    assert (
        "RTX 4090: no longer any instances available; A100: no longer any instances available" in caplog.text
    )


async def test_a_refused_order_is_tried_again_after_it_has_cooled_down(world: World) -> None:
    world.cloud.creates.extend([Create.CAPACITY] * 2)
    world.burst()
    await world.until(State.COOLING)
    assert await world.until(State.SHARED) == pytest.approx(30, abs=1)
    await world.ready()


async def test_a_candidate_without_a_price_is_passed_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.cloud.prices["RTX 4090"] = None
    await world.ready()
    assert [order.candidate.gpu_type for order in world.cloud.orders] == ["A100"]


async def test_when_prices_cannot_be_asked_nothing_is_bought(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.cloud.is_failing = True
    world.burst()
    await world.until(State.COOLING)
    assert not world.cloud.orders
    assert "RTX 4090: no price: the cloud does not answer" in caplog.text


async def test_a_candidate_over_the_budget_leads_to_a_cheaper_one(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(caps=Caps(10, 1.0)))
    world.cloud.prices |= {"RTX 4090": 3.0, "A100": 0.9}
    await world.ready()
    assert [order.candidate.gpu_type for order in world.cloud.orders] == ["A100"]
    await world.stop()


async def test_orders_at_the_same_time_share_the_budget(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(caps=Caps(10, 1.2), candidates=(Candidate("RTX 4090", "SECURE"),)))
    world.cloud.prices["RTX 4090"] = 0.7
    world.cloud.create_s, world.cloud.call_s = 5, 1
    world.burst(ALICE)
    world.burst(BOB)
    await clock.advance(20)
    assert len(world.cloud.orders) == 1
    assert {world.state(ALICE), world.state(BOB)} == {State.BOOTING, State.COOLING}
    await world.stop()


async def test_a_pod_found_by_name_without_a_price_counts_with_the_one_that_was_asked(world: World) -> None:
    world.cloud.creates.append(Create.LOST)
    world.burst()
    await world.clock.settle()
    world.cloud.pods[0].cost_per_hour_usd = None
    await world.until(State.BOOTING)
    kept = world.sessions.get(ALICE).pod
    assert kept is not None
    assert kept.cost_per_hour_usd == 0.5


async def test_lists_that_fail_do_not_count_as_lists_without_the_pod(world: World) -> None:
    world.cloud.creates.append(Create.LOST)
    world.cloud.is_list_failing = True
    world.burst()
    await world.clock.advance(600)
    assert world.state() is State.CREATING
    world.cloud.is_list_failing = False
    await world.until(State.READY, within_s=20)
    assert len(world.cloud.pods) == 1


async def test_doubles_under_one_name_lead_to_one_session_and_one_stray(world: World) -> None:
    world.run_loops()
    world.cloud.creates.append(Create.DOUBLE)
    pod = await world.ready()
    await world.clock.advance(60)
    assert world.cloud.living() == [pod]


async def test_of_doubles_that_are_looked_up_the_oldest_is_kept(world: World) -> None:
    world.run_loops()
    world.cloud.creates.append(Create.LOST)
    world.burst()
    await world.clock.settle()
    [younger] = world.cloud.living()
    world.cloud.make(younger.name)
    older = world.cloud.make(younger.name)
    younger.created_at = datetime(2026, 11, 24, 4, 0, 1, tzinfo=UTC)
    older.created_at = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
    await world.until(State.READY)
    assert world.pod() == older
    await world.clock.advance(60)
    assert world.cloud.living() == [older]


async def test_a_double_is_ended_while_the_id_of_the_other_is_still_on_its_way(world: World) -> None:
    world.cloud.creates.append(Create.NOTHING)
    world.burst()
    await world.clock.settle()
    name = world.cloud.orders[0].name
    first, double = world.cloud.make(name), world.cloud.make(name)
    await world.watch.tick()
    await world.clock.settle()
    assert world.state() is State.CREATING
    assert (first.ended_s, double.ended_s) == (None, 0.0)
    await world.until(State.READY)
    assert world.pod() == first


async def test_without_a_candidate_the_order_is_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart may find a session that was asked for when provisioning was still on."""
    caplog.set_level(logging.INFO)
    world.cloud.create_s = 10
    world.burst()
    world.memory.rows[ALICE] = world.sessions.get(ALICE)
    row = world.memory.rows[ALICE]
    world.memory.rows[ALICE] = type(row)(ALICE, State.REQUESTED, row.since, None, 1)
    await world.restart(rules=with_rules(candidates=()))
    await world.until(State.COOLING, within_s=10)
    assert "no GPU type is configured" in caplog.text


async def test_each_attempt_has_a_name_of_its_own(world: World) -> None:
    world.cloud.creates.append(Create.UNAUTHORIZED)
    world.burst()
    await world.until(State.SHARED)
    await world.ready()
    names = [order.name for order in world.cloud.orders]
    assert len(set(names)) == 2
    assert all(world.names.is_ours(name) for name in names)


async def test_no_secret_reaches_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.cloud.creates.append(Create.LOST)
    pod = await world.ready()
    await world.until(State.SHARED)
    for secret in ("HF_TOKEN", KEYS.pod_token(pod.name), KEYS.agent_token(pod.name)):
        assert secret not in caplog.text
