"""What one list of all pods says about sessions and strays."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from tests.fakes.cloud import Create, FakeCloud
from tests.fakes.store import PodRow
from tests.service.world import ALICE, BOB, RULES, World

UNKNOWN = "comfy-gw-zoe12345678-a77"
LOOK_ALIKES = [
    "comfy-gw-eu-zoe-a1",
    "comfy-gwx-zoe-a1",
    "xcomfy-gw-zoe-a1",
    "comfy-gw-zoe",
    "comfy-gw-Zoe-a1",
    "comfy-gw-zoe-a1-b",
    "my-training-run",
    "",
]


async def test_one_miss_in_a_list_says_nothing(world: World) -> None:
    pod = await world.ready()
    world.cloud.lists_drop.extend([{pod.id}, {pod.id}])
    for _ in range(20):
        await world.watch.tick()
    assert world.signals.take(ALICE) is None
    assert world.state() is State.READY


async def test_three_misses_and_a_look_say_that_the_pod_is_gone(world: World) -> None:
    pod = await world.ready()
    world.cloud.vanish(pod.id)
    await world.watch.tick()
    await world.watch.tick()
    await world.clock.settle()
    assert world.state() is State.READY
    await world.watch.tick()
    await world.clock.settle()
    assert Event.VANISHED in world.events()


async def test_a_pod_that_only_the_list_leaves_out_is_kept(world: World) -> None:
    pod = await world.ready()
    world.cloud.lists_drop.extend([{pod.id}] * 7)
    for _ in range(7):
        await world.watch.tick()
    await world.clock.settle()
    assert world.state() is State.READY


async def test_misses_are_counted_in_a_row(world: World) -> None:
    pod = await world.ready()
    looks: list[str] = []
    real = world.cloud.get_pod

    async def get_pod(pod_id: str) -> object:
        looks.append(pod_id)
        return await real(pod_id)

    world.cloud.get_pod = get_pod  # type: ignore[assignment, method-assign]
    world.cloud.lists_drop.extend([{pod.id}, {pod.id}, set(), {pod.id}, {pod.id}])
    for _ in range(5):
        await world.watch.tick()
    assert not looks


async def test_a_failed_list_says_nothing_however_often(world: World) -> None:
    pod = await world.ready()
    world.cloud.vanish(pod.id)
    world.cloud.is_list_failing = True
    for _ in range(10):
        await world.watch.tick()
    await world.clock.settle()
    assert world.state() is State.READY


async def test_a_failed_look_says_nothing(world: World) -> None:
    pod = await world.ready()
    world.cloud.vanish(pod.id)
    await world.watch.tick()
    await world.watch.tick()
    listed = world.cloud.list_pods

    async def list_and_then_fail() -> object:
        pods = await listed()
        world.cloud.is_failing = True
        return pods

    world.cloud.list_pods = list_and_then_fail  # type: ignore[assignment, method-assign]
    await world.watch.tick()
    await world.clock.settle()
    assert world.state() is State.READY


async def test_a_pod_that_does_not_run_is_left_at_once_with_the_clouds_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pod = await world.ready()
    world.cloud.exit(pod.id, "Exited by Runpod: Insufficient balance")
    await world.watch.tick()
    await world.until(State.SHARED)
    assert "the pod does not run: Exited by Runpod: Insufficient balance" in caplog.text
    assert pod.ended_s is not None


async def test_a_pod_that_does_not_run_may_come_without_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pod = await world.ready()
    world.cloud.exit(pod.id, "")
    await world.watch.tick()
    await world.until(State.SHARED)
    assert "the pod does not run\n" in caplog.text


async def test_the_list_tells_what_a_pod_costs(world: World) -> None:
    pod = await world.ready()
    pod.cost_per_hour_usd = 0.77
    await world.watch.tick()
    kept = world.sessions.get(ALICE).pod
    assert kept is not None
    assert kept.cost_per_hour_usd == 0.77

    pod.cost_per_hour_usd = None
    await world.watch.tick()
    kept = world.sessions.get(ALICE).pod
    assert kept is not None
    assert kept.cost_per_hour_usd == 0.77


async def test_a_session_that_moved_on_during_a_tick_is_not_told_of_its_old_pod(world: World) -> None:
    """A signal about a pod that was left would end the next one."""
    first = await world.ready(ALICE)
    second = await world.ready(BOB)
    world.cloud.vanish(first.id)
    await world.watch.tick()
    await world.watch.tick()
    world.cloud.exit(second.id)

    async def look_slowly(pod_id: str) -> None:
        # While the tick waits for this answer, both sessions come to their end.
        world.cloud.get_pod = real  # type: ignore[method-assign]
        for user in (ALICE, BOB):
            world.signals.send(user, Event.VANISHED, "seen by somebody else")
        await world.clock.advance(30)
        assert world.state(ALICE) is world.state(BOB) is State.SHARED

    real = world.cloud.get_pod
    world.cloud.get_pod = look_slowly  # type: ignore[method-assign]
    await world.watch.tick()
    assert world.signals.take(ALICE) is None
    assert world.signals.take(BOB) is None


async def test_a_known_stray_is_ended_at_the_first_sight(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.cloud.creates.append(Create.DOUBLE)
    pod = await world.ready()
    assert len(world.cloud.living()) == 2
    await world.watch.tick()
    await world.clock.settle()
    await world.clock.advance(5)
    assert world.cloud.living() == [pod]
    assert "its attempt was given up" in caplog.text


async def test_an_unknown_pod_with_our_tag_is_ended_after_the_grace(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    stray = world.cloud.make(UNKNOWN)
    world.tasks.start(world.watch.run(), name="watch")
    await world.clock.advance(590)
    assert stray.ended_s is None
    await world.clock.advance(30)
    assert stray.ended_s is not None
    assert "unknown for 600 s" in caplog.text
    assert len(world.cloud.terminations) == 1


async def test_a_stray_that_goes_by_itself_is_forgotten(world: World) -> None:
    stray = world.cloud.make(UNKNOWN)
    await world.watch.tick()
    world.cloud.vanish(stray.id)
    await world.watch.tick()
    assert not world.strays._since_s
    assert not world.cloud.terminations


@pytest.mark.parametrize("name", LOOK_ALIKES)
async def test_a_pod_whose_name_only_looks_like_ours_is_never_touched(world: World, name: str) -> None:
    other = world.cloud.make(name)
    world.run_loops()
    await world.ready()
    await world.clock.advance(4000)
    assert other.ended_s is None
    assert name not in world.cloud.terminations


async def test_a_pod_whose_order_is_not_answered_yet_is_no_stray(world: World) -> None:
    world.cloud.create_s = 20
    world.burst()
    await world.clock.settle()
    ordered = world.sessions.get(ALICE).pod
    assert ordered is not None
    made = world.cloud.make(ordered.name)
    await world.watch.tick()
    await world.clock.advance(5)
    assert made.ended_s is None


async def test_a_pod_that_is_claimed_while_the_store_is_asked_is_no_stray(world: World) -> None:
    made = world.cloud.make(world.names.make(ALICE, "a1"))
    world.memory.pods[made.name] = PodRow(ALICE)
    world.cloud.creates.append(Create.NOTHING)
    world.memory.call_s = 3

    world.tasks.start(world.watch.tick(), name="tick")
    await world.clock.settle()
    world.burst()
    await world.clock.advance(60)
    assert world.pod() is made
    assert made.ended_s is None


async def test_a_store_that_is_down_gives_a_stray_its_grace_and_no_longer_life(world: World) -> None:
    stray = world.cloud.make(UNKNOWN)
    world.memory.is_down = True
    world.run_loops()
    await world.clock.advance(RULES.idle.idle_s - RULES.reconcile_s)
    assert stray.ended_s is None
    await world.clock.advance(3 * RULES.reconcile_s)
    assert stray.ended_s is not None


async def test_a_stray_that_does_not_end_is_asked_for_by_one_task(world: World) -> None:
    world.cloud.make(UNKNOWN)
    world.cloud.swallowed_terminations = 4
    world.tasks.start(world.watch.run(), name="watch")
    await world.clock.advance(700)
    assert len(world.cloud.terminations) == 5
    assert not world.cloud.living()


async def test_the_watch_goes_on_after_a_tick_that_failed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cloud: FakeCloud = world.cloud
    real = cloud.list_pods

    async def broken() -> object:
        cloud.list_pods = real  # type: ignore[method-assign]
        raise KeyError("a bug of ours")

    cloud.list_pods = broken  # type: ignore[assignment, method-assign]
    stray = cloud.make(UNKNOWN)
    world.tasks.start(world.watch.run(), name="watch")
    await world.clock.advance(700)
    assert "the cloud watch failed once" in caplog.text
    assert stray.ended_s is not None


async def test_all_users_cost_one_list_a_tick(world: World) -> None:
    await world.ready(ALICE)
    await world.ready(BOB)
    lists = world.cloud.lists
    await world.watch.tick()
    assert world.cloud.lists == lists + 1


async def test_a_price_that_the_list_tells_anew_is_stored_as_soon_as_that_can_be_done(world: World) -> None:
    pod = await world.ready()
    pod.cost_per_hour_usd = 2.0
    world.memory.is_down = True
    await world.watch.tick()
    world.memory.is_down = False
    await world.watch.tick()
    stored = world.memory.rows[ALICE].pod
    assert stored is not None
    assert stored.cost_per_hour_usd == 2.0
    saves = world.memory.rows[ALICE].version
    await world.watch.tick()
    assert world.memory.rows[ALICE].version == saves, "the same price is no news"
