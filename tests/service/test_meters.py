"""The gateway's own counters."""

import subprocess
from collections.abc import Sequence

import pytest
from prometheus_client import generate_latest

from comfy_gateway.core.errors import (
    CapacityRefused,
    CloudRefused,
    CloudUnauthorized,
    CloudUnavailable,
)
from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.ports import Candidate, CloudPod
from comfy_gateway.core.prompts.prompts import Outcome
from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.service.cloud.counted_cloud import CountedCloud
from comfy_gateway.service.meters import CloudCall, CloudOutcome, Meters
from comfy_gateway.service.money.spend_meter import INTERVAL_S, show_spend
from comfy_gateway.site.relay.limits import RelayStats
from tests.programs import require_program
from tests.service.world import ALICE, World


def value(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)


async def test_transitions_and_sessions_are_counted(world: World) -> None:
    meters = Meters()
    meters.watch(world.sessions)
    assert value(meters, "comfy_gateway_session_transitions_total", event="burst") == 0
    await world.ready()
    assert value(meters, "comfy_gateway_session_transitions_total", event="burst") == 1
    assert value(meters, "comfy_gateway_sessions", state="ready") == 1
    assert value(meters, "comfy_gateway_sessions", state="booting") == 0
    await world.until(State.SHARED)
    assert value(meters, "comfy_gateway_sessions", state="ready") == 0


def test_every_event_has_its_label_before_it_happens() -> None:
    meters = Meters()
    for event in Event:
        assert value(meters, "comfy_gateway_session_transitions_total", event=event) == 0


async def test_every_state_but_shared_is_shown(world: World) -> None:
    meters = Meters()
    meters.watch(world.sessions)
    shown = {state for state in State if value(meters, "comfy_gateway_sessions", state=state) is not None}
    assert shown == set(State) - {State.SHARED}


def test_accepted_prompts_are_counted_by_who_took_them() -> None:
    meters = Meters()
    meters.prompt_accepted(Source.PRIVATE)
    assert value(meters, "comfy_gateway_prompts_accepted_total", source="private") == 1
    assert value(meters, "comfy_gateway_prompts_accepted_total", source="duty") == 0


def test_two_gateways_in_a_process_do_not_share_numbers() -> None:
    one, other = Meters(), Meters()
    one.prompt_accepted(Source.DUTY)
    assert value(other, "comfy_gateway_prompts_accepted_total", source="duty") == 0


async def test_no_label_holds_a_users_name(world: World) -> None:
    meters = Meters()
    meters.watch(world.sessions)
    await world.ready()
    labels = {
        text
        for metric in meters.registry.collect()
        for sample in metric.samples
        for text in sample.labels.values()
    }
    assert not any("alice" in text for text in labels)


async def test_boots_money_and_endings_are_shown(world: World) -> None:
    meters = Meters()
    meters.watch(world.sessions)
    world.ledger.watch(lambda record: meters.prompt_changed(record, duty_ids={"duty-0"}))
    task = world.tasks.start(show_spend(world.store, meters, world.clock), name="spend")
    pod = await world.ready()
    world.ledger.end(world.prompts(ALICE, 1, is_done=False)[0], Outcome.ERROR)
    assert value(meters, "comfy_gateway_boot_seconds_count") == 1
    assert 0 < (value(meters, "comfy_gateway_boot_seconds_sum") or 0) < 1200
    assert value(meters, "comfy_gateway_cost_usd_per_hour") == pod.cost_per_hour_usd
    assert value(meters, "comfy_gateway_prompts_ended_total", source="duty", outcome="done") == 5
    assert value(meters, "comfy_gateway_prompts_ended_total", source="private", outcome="error") == 1
    assert value(meters, "comfy_gateway_prompts_ended_total", source="private", outcome="lost") == 0
    world.memory.is_down = True
    await world.clock.advance(INTERVAL_S)
    world.memory.is_down = False
    await world.clock.advance(INTERVAL_S)
    spent_usd = value(meters, "comfy_gateway_spent_today_usd")
    assert spent_usd == pytest.approx(world.cloud.spent_usd(), rel=0.5)
    assert spent_usd
    task.cancel()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, CloudOutcome.OK),
        (CapacityRefused("none"), CloudOutcome.NO_CAPACITY),
        (CloudRefused("no"), CloudOutcome.REFUSED),
        (CloudUnauthorized("key"), CloudOutcome.UNAUTHORIZED),
        (CloudUnavailable("late"), CloudOutcome.UNAVAILABLE),
        (RuntimeError("ours"), CloudOutcome.BROKEN),
    ],
)
async def test_calls_to_the_cloud_are_counted_by_how_they_went(
    world: World, error: Exception | None, outcome: CloudOutcome
) -> None:
    class Failing(CountedCloud):
        """A cloud that raises."""

        async def list_pods(self) -> Sequence[CloudPod]:
            if error is not None:
                raise error
            return []

    meters = Meters()
    cloud = CountedCloud(Failing(world.cloud, Meters()), meters)
    if error is None:
        assert await cloud.list_pods() == []
    else:
        with pytest.raises(type(error)):
            await cloud.list_pods()
    found = {
        one: value(meters, "comfy_gateway_cloud_calls_total", call="list", outcome=one)
        for one in CloudOutcome
    }
    assert found == dict.fromkeys(CloudOutcome, 0.0) | {outcome: 1.0}


async def test_every_call_passes_through_and_has_its_name(world: World) -> None:
    meters = Meters()
    cloud = CountedCloud(world.cloud, meters)
    pod = world.cloud.make("comfy-gw-x-a1")
    assert await cloud.price_per_hour_usd(Candidate("RTX 4090", "SECURE")) is not None
    found = await cloud.get_pod(pod.id)
    assert found is not None
    await cloud.terminate_pod(pod.id)
    await cloud.aclose()
    for call in (CloudCall.GET, CloudCall.PRICE, CloudCall.TERMINATE):
        assert value(meters, "comfy_gateway_cloud_calls_total", call=call, outcome="ok") == 1


def test_latency_is_shown_by_kind_of_request() -> None:
    meters = Meters()
    meters.answered("queue", 0.02)
    meters.answered("", 1.0)
    for kind in RequestClass:
        count = value(meters, "comfy_gateway_request_seconds_count", kind=kind)
        assert count == (1 if kind is RequestClass.QUEUE else 0)
    assert value(meters, "comfy_gateway_request_seconds_bucket", kind="queue", le="0.025") == 1
    assert value(meters, "comfy_gateway_request_seconds_bucket", kind="queue", le="0.01") == 0


async def test_promtool_accepts_the_metrics(world: World) -> None:
    meters = Meters()
    meters.watch(world.sessions)
    meters.watch_values("comfy_gateway_relay", "The relay's", RelayStats())
    await world.ready()
    checked = subprocess.run(
        [require_program("promtool"), "check", "metrics"],
        input=generate_latest(meters.registry),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
