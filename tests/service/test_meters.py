"""The gateway's own counters."""

from comfy_gateway.core.session import Event, State
from comfy_gateway.core.upstream import Source
from comfy_gateway.service.meters import Meters
from tests.service.world import World


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
