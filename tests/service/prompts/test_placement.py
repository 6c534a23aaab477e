"""Which server a prompt goes to, and which prompts earn a pod."""

import json
import logging
from typing import Any

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.prompts.catalogues import TRY_AGAIN_S
from comfy_gateway.service.prompts.placement import REMEMBERED_S
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB, World, with_rules

SAVE = {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True}
PAINT = {"input": {"required": {"style": ["STRING"]}}, "output_node": False}


def loader(*models: str) -> dict[str, Any]:
    return {"input": {"required": {"name": [list(models)]}}, "output_node": False}


def info(**classes: Any) -> bytes:
    return json.dumps({"SaveImage": SAVE, **classes}).encode()


def prompt(class_type: str, prompt_id: str = "p", **inputs: Any) -> dict[str, Any]:
    """A picture by one node of this class."""
    nodes = {
        "1": {"class_type": class_type, "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    return {"prompt": nodes, "prompt_id": prompt_id}


PAINTING = prompt("Painter", style="oil")
SMALL, LARGE = prompt("Loader", name="small"), prompt("Loader", name="large")

DUTY_INFO = info(Painter=PAINT, Loader=loader("small", "large"))
POD_INFO = info(Loader=loader("small"))


async def ready(world: World, pod_info: bytes = POD_INFO, duty_info: bytes = DUTY_INFO) -> Backend:
    """Alice's pod serves; returns it."""
    world.comfy.object_infos[world.pool.home.id] = duty_info
    await world.catalogues.look()
    world.burst(ALICE)
    pod = await ordered(world)
    world.comfy.object_infos[pod] = pod_info
    await world.until(State.READY)
    return world.routes.current(ALICE)


async def ordered(world: World) -> str:
    """The name of the pod that Alice waits for."""
    await world.until(State.BOOTING)
    pod = world.sessions.get(ALICE).pod
    assert pod is not None
    return pod.name


def placed(world: World, document: dict[str, Any]) -> str:
    return str(world.placement.backend_for(ALICE, document).source)


async def test_prompts_go_to_the_pod_unless_only_duty_can_run_them(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pod = await ready(world)
    assert placed(world, SMALL) == "private"
    assert placed(world, PAINTING) == "duty"
    assert placed(world, LARGE | {"prompt_id": "other"}) == "duty"
    assert [line for line in caplog.messages if "a prompt stays on duty" in line] == [
        f"RunPod session named:alice: a prompt stays on duty, for pod {pod.id} lacks node 'Painter'",
        f"RunPod session named:alice: a prompt stays on duty, for pod {pod.id} lacks model 'large' (Loader.name)",
    ]


async def test_a_prompt_that_is_placed_twice_has_one_line_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await ready(world)
    for _ in range(3):
        assert placed(world, PAINTING) == "duty"
    assert len([line for line in caplog.messages if "a prompt stays on duty" in line]) == 1


async def test_what_the_pod_lacks_is_logged_before_it_is_used(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await ready(world)
    (line,) = [line for line in caplog.messages if "its models" in line]
    assert f"pod {pod.id} lacks 1 of duty's node classes and 1 of its models" in line
    assert line.endswith("node 'Painter', model 'large' (Loader.name)")


async def test_long_differences_are_cut_short(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await ready(world, info(), info(**{f"Custom{number}": PAINT for number in range(200)}))
    (line,) = [line for line in caplog.messages if "its models" in line]
    assert line.endswith("node 'Custom101' and 195 more")


async def test_equal_servers_differ_in_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await ready(world, DUTY_INFO, DUTY_INFO)
    assert "lacks" not in caplog.text
    assert placed(world, PAINTING) == "private"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(prompt("Unheard"), id="a node that neither has"),
        pytest.param(prompt("Loader", name="none"), id="a model that neither has"),
        pytest.param(
            {"prompt": {**PAINTING["prompt"], "3": {"class_type": "Unheard", "inputs": {}}}},
            id="a node that only duty has and one that neither has",
        ),
        pytest.param({"prompt": "nonsense"}, id="no graph"),
        pytest.param({}, id="nothing"),
    ],
)
async def test_what_neither_side_can_run_goes_to_the_pod_which_says_why(
    world: World, document: dict[str, Any]
) -> None:
    await ready(world)
    assert placed(world, document) == "private"


async def test_the_server_that_can_do_more_than_the_pod_is_known(world: World) -> None:
    assert world.placement.richer(ALICE) is None
    pod = await ready(world)
    assert world.placement.richer(ALICE) == world.pool.home
    assert world.placement.richer(BOB) is None
    assert world.placement.richer(None) is None
    world.comfy.object_infos[pod.id] = info(Painter=PAINT, Loader=loader("small", "large"), Own=PAINT)
    await world.catalogues.fetch(pod)
    assert world.placement.richer(ALICE) is None


async def test_what_only_the_pod_can_run_goes_there(world: World) -> None:
    await ready(world, info(Painter=PAINT, Own=PAINT), DUTY_INFO)
    assert placed(world, prompt("Own")) == "private"
    both = {"prompt": {**prompt("Own")["prompt"], "3": SMALL["prompt"]["1"]}}
    assert placed(world, both) == "private"


async def test_a_value_that_neither_lists_does_not_hide_a_node_that_duty_has(world: World) -> None:
    """Its node may judge it for itself; duty says so or runs it."""
    await ready(world, info(Loader=loader("small")), DUTY_INFO)
    document = {"prompt": {**PAINTING["prompt"], "3": prompt("Loader", name="x")["prompt"]["1"]}}
    document["prompt"]["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "more": ["3", 0]}}
    assert placed(world, document) == "duty"


async def test_without_a_pod_everything_is_placed_on_duty(world: World) -> None:
    world.comfy.object_infos[world.pool.home.id] = DUTY_INFO
    await world.catalogues.look()
    assert placed(world, prompt("Unheard")) == "duty"
    assert world.placement.backend_for(None, prompt("Unheard")) == world.pool.home


async def test_a_pod_that_does_not_tell_is_used_and_holds_nothing_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.comfy.object_infos[world.pool.home.id] = DUTY_INFO
    await world.catalogues.look()
    world.burst(ALICE)
    pod = await ordered(world)
    world.comfy.down.add(pod)
    await world.until(State.READY)
    assert f"pod {pod} is not compared with duty: 502 Bad Gateway" in caplog.text
    assert placed(world, PAINTING) == "private"
    # It is asked again, and from then on the gate stands.
    world.comfy.down.clear()
    world.comfy.object_infos[pod] = POD_INFO
    await world.clock.advance(TRY_AGAIN_S)
    await world.catalogues.look()
    assert placed(world, PAINTING) == "duty"


async def test_while_duty_is_unknown_nothing_is_held_back(world: World) -> None:
    world.comfy.down.add(world.pool.home.id)
    world.burst(ALICE)
    world.comfy.object_infos[await ordered(world)] = POD_INFO
    await world.until(State.READY)
    assert placed(world, PAINTING) == "private"


async def test_what_is_installed_on_the_pod_later_is_found(world: World) -> None:
    pod = await ready(world)
    assert placed(world, PAINTING) == "duty"
    world.comfy.object_infos[pod.id] = DUTY_INFO
    await world.clock.advance(TRY_AGAIN_S)
    assert placed(world, PAINTING) == "duty"
    await world.clock.settle()
    assert placed(world, PAINTING) == "private"


async def test_a_refusal_has_both_servers_read_again(world: World) -> None:
    pod = await ready(world)
    world.comfy.object_infos[world.pool.home.id] = info(Painter=PAINT, New=PAINT)
    assert placed(world, prompt("New")) == "private"
    await world.clock.advance(TRY_AGAIN_S)
    world.comfy.read.clear()
    world.placement.refused(ALICE, pod)
    await world.clock.settle()
    assert sorted(world.comfy.read) == sorted([pod.id, world.pool.home.id])
    assert placed(world, prompt("New")) == "duty"
    world.comfy.read.clear()
    world.placement.refused(ALICE, pod)
    await world.clock.settle()
    assert world.comfy.read == []


async def test_a_pod_is_met_again_after_a_restart_of_the_gateway(clock: FakeClock) -> None:
    world = World(clock)
    await ready(world)
    await world.restart()
    await world.until(State.READY)
    assert placed(world, PAINTING) == "duty"
    await world.stop()


async def test_a_person_who_stops_a_pod_while_it_is_met_is_obeyed(world: World) -> None:
    async def slow(backend: Backend) -> bytes:
        await world.clock.sleep(20)
        return POD_INFO

    world.comfy.object_info = slow  # type: ignore[method-assign]
    world.burst(ALICE)
    await world.until(State.VERIFYING)
    await world.clock.advance(5)
    world.signals.send(ALICE, Event.STOPPED, "a person")
    await world.until(State.SHARED)
    assert Event.AGENT_ANSWERED not in world.events()


# What earns a pod


def accept(world: World, document: dict[str, Any], count: int = 5) -> None:
    """Duty accepts so many prompts of Alice."""
    for _ in range(count):
        world.bursts.prompt_accepted(ALICE, earns_pod=world.placement.earns_pod(ALICE, document))


async def ended(world: World) -> None:
    """Alice's pod has been ended."""
    world.signals.send(ALICE, Event.STOPPED, "a test")
    await world.until(State.SHARED)


async def test_a_burst_that_the_last_pod_could_not_run_buys_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await ready(world)
    await ended(world)
    accept(world, PAINTING, 10)
    accept(world, LARGE, 10)
    assert world.state() is State.SHARED
    assert [line for line in caplog.messages if "earn no pod" in line] == [
        "RunPod session named:alice: prompts of this kind earn no pod, for the last one lacked node 'Painter'"
    ]
    accept(world, SMALL)
    assert world.state() is not State.SHARED


async def test_prompts_that_earn_nothing_do_not_complete_a_burst(world: World) -> None:
    await ready(world)
    await ended(world)
    accept(world, SMALL, 4)
    accept(world, PAINTING, 4)
    assert world.state() is State.SHARED
    accept(world, SMALL, 1)
    assert world.state() is not State.SHARED


async def test_the_first_burst_of_all_buys_a_pod(world: World) -> None:
    world.comfy.object_infos[world.pool.home.id] = DUTY_INFO
    await world.catalogues.look()
    accept(world, PAINTING)
    assert world.state() is not State.SHARED


async def test_a_node_that_duty_has_learned_since_it_was_read_earns_nothing_either(world: World) -> None:
    await ready(world)
    await ended(world)
    accept(world, prompt("New"))
    assert world.state() is State.SHARED


async def test_what_was_installed_on_the_last_pod_meanwhile_counts(world: World) -> None:
    pod = await ready(world)
    world.comfy.object_infos[pod.id] = DUTY_INFO
    await world.catalogues.fetch(pod)
    await ended(world)
    accept(world, PAINTING)
    assert world.state() is not State.SHARED


async def test_the_last_pod_is_forgotten_in_time(world: World) -> None:
    await ready(world)
    await ended(world)
    await world.clock.advance(REMEMBERED_S + 1)
    accept(world, PAINTING)
    assert world.state() is not State.SHARED


async def test_a_pod_that_was_ordered_before_a_restart_says_nothing_of_the_next_one(clock: FakeClock) -> None:
    """Its image may be the reason of the restart."""
    world = World(clock)
    await ready(world)
    await world.clock.advance(1)
    await world.restart()
    await world.until(State.READY)
    await ended(world)
    accept(world, PAINTING)
    assert world.state() is not State.SHARED
    await world.stop()


async def test_where_the_first_sign_of_life_buys_a_pod_a_socket_alone_buys_none_again(
    clock: FakeClock,
) -> None:
    world = World(clock, rules=with_rules(threshold_count=0))
    world.bursts.seen(ALICE)
    world.comfy.object_infos[world.pool.home.id] = DUTY_INFO
    world.comfy.object_infos[await ordered(world)] = POD_INFO
    await world.until(State.READY)
    await ended(world)
    accept(world, PAINTING, 1)
    world.bursts.seen(ALICE)
    assert world.state() is State.SHARED
    world.bursts.seen(BOB)
    assert world.state(BOB) is not State.SHARED
    accept(world, SMALL, 1)
    assert world.state() is not State.SHARED
    await world.stop()


async def test_what_is_remembered_of_users_without_use_is_bounded(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(threshold_count=0), max_users=1)
    for user in (ALICE, BOB):
        world.bursts.prompt_accepted(user, earns_pod=False)
    world.bursts.seen(BOB)
    assert world.state(BOB) is State.SHARED
    world.bursts.seen(ALICE)
    assert world.state(ALICE) is not State.SHARED
    await world.stop()


# What duty lacks


NEWER_INFO = info(Newest=PAINT)
WANTING = with_rules(bursts_for_missing=True)


async def refused(world: World, document: dict[str, Any]) -> None:
    """Duty has refused a prompt of Alice, as submission notes it."""
    world.bursts.duty_lacks(ALICE, world.placement.only_on_pods(ALICE, document))


async def test_a_prompt_that_duty_lacks_something_for_starts_a_pod_that_has_it(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World(clock, rules=WANTING)
    await ready(world, pod_info=NEWER_INFO)
    await ended(world)
    await refused(world, prompt("Unheard"))
    assert world.state() is State.SHARED  # neither has that
    await refused(world, prompt("Newest"))
    assert world.state() is State.BOOTING
    assert "a prompt that duty cannot run and pods can: node 'Newest'" in caplog.text
    await world.stop()


async def test_what_pods_have_is_not_guessed(clock: FakeClock) -> None:
    world = World(clock, rules=WANTING)
    await refused(world, prompt("Newest"))
    assert world.state() is State.SHARED
    await world.stop()


async def test_unless_that_is_wanted_a_refusal_of_duty_buys_nothing(world: World) -> None:
    await ready(world, pod_info=NEWER_INFO)
    await ended(world)
    await refused(world, prompt("Newest"))
    assert world.state() is State.SHARED
