"""The registry: one place where a session changes."""

import asyncio
import logging
from dataclasses import replace

import pytest

from comfy_gateway.core.errors import IllegalTransition, StaleRecord, StoreUnavailable
from comfy_gateway.core.life.session import Event, Pod, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.life.life import backend_of
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import START, FakeClock
from tests.fakes.store import FakeStore
from tests.service.world import ADDRESSES, ALICE, BOB, KEYS, World, duty

POD = Pod("comfy-gw-alice-a1", "a1", START, "pod1", "RTX 4090", 0.5)
TO_READY = [
    (Event.BURST, None),
    (Event.ORDERED, replace(POD, pod_id=None)),
    (Event.CREATED, POD),
    (Event.HEALTHY, None),
    (Event.AGENT_ANSWERED, None),
]


@pytest.fixture
def store(clock: FakeClock) -> FakeStore:
    return FakeStore(clock)


@pytest.fixture
def routes() -> Routes:
    return Routes(duty(), lambda _user: duty())


@pytest.fixture
def sessions(store: FakeStore, routes: Routes, clock: FakeClock) -> Sessions:
    return made(store, routes, clock)


def made(store: FakeStore, routes: Routes, clock: FakeClock) -> Sessions:
    return Sessions(
        store=store, routes=routes, clock=clock, backend_of=lambda pod: backend_of(pod, ADDRESSES, KEYS)
    )


def lead_to_ready(sessions: Sessions, user: UserId = ALICE) -> None:
    for event, pod in TO_READY:
        sessions.apply(user, event, "test", pod=pod)


def test_who_was_never_seen_is_shared_and_not_kept(sessions: Sessions) -> None:
    assert sessions.get(ALICE).state is State.SHARED
    assert list(sessions) == []


def test_the_route_is_there_in_ready_alone(sessions: Sessions, routes: Routes) -> None:
    for event, pod in TO_READY:
        assert routes.private(ALICE) is None
        sessions.apply(ALICE, event, "test", pod=pod)
    assert routes.private(ALICE) is not None
    sessions.apply(ALICE, Event.IDLE, "test")
    assert routes.private(ALICE) is None
    assert routes.by_id(ALICE, POD.name) is not None
    sessions.apply(ALICE, Event.DRAINED, "test")
    assert routes.by_id(ALICE, POD.name) is None


def test_an_illegal_event_changes_nothing_and_is_not_told(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told: list[Event] = []
    sessions.watch(lambda _before, _after, event: told.append(event))
    with pytest.raises(IllegalTransition):
        sessions.apply(ALICE, Event.HEALTHY, "test")
    assert sessions.get(ALICE).state is State.SHARED
    assert not told
    assert not caplog.records


def test_a_pod_without_an_address_changes_nothing(store: FakeStore, routes: Routes, clock: FakeClock) -> None:
    def no_address(_pod: Pod) -> Backend:
        raise ValueError("the template makes no address")

    sessions = Sessions(store=store, routes=routes, clock=clock, backend_of=no_address)
    for event, pod in TO_READY[:-1]:
        sessions.apply(ALICE, event, "test", pod=pod)
    with pytest.raises(ValueError, match="no address"):
        sessions.apply(ALICE, Event.AGENT_ANSWERED, "test")
    assert sessions.get(ALICE).state is State.VERIFYING


async def test_a_transitions_line_names_user_pod_states_seconds_and_cause(
    sessions: Sessions, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lead_to_ready(sessions)
    caplog.clear()
    await clock.advance(61.25)
    sessions.apply(ALICE, Event.IDLE, "idle for 60 s")
    assert caplog.messages == [
        "RunPod session named:alice: ready -> draining, pod comfy-gw-alice-a1, after 61.2 s: idle for 60 s"
    ]


def test_the_line_of_the_end_still_names_the_pod(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    lead_to_ready(sessions)
    for event in (Event.VANISHED, Event.ENDED):
        caplog.set_level(logging.INFO)
        sessions.apply(ALICE, event, "test")
    assert "terminating -> shared, pod comfy-gw-alice-a1" in caplog.messages[-1]


def test_watchers_see_before_and_after(sessions: Sessions) -> None:
    seen: list[tuple[State, State, Event]] = []
    sessions.watch(lambda before, after, event: seen.append((before.state, after.state, event)))
    sessions.apply(ALICE, Event.BURST, "test")
    assert seen == [(State.SHARED, State.REQUESTED, Event.BURST)]


def test_counted_and_billing_are_not_the_same(sessions: Sessions) -> None:
    sessions.apply(ALICE, Event.BURST, "test")
    lead_to_ready(sessions, BOB)
    assert {session.user for session in sessions.counted()} == {ALICE, BOB}
    assert [session.user for session in sessions.counted(but=ALICE)] == [BOB]
    assert [session.user for session in sessions.billing()] == [BOB]


def test_what_the_cloud_says_of_a_pod_is_kept_and_is_no_transition(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    lead_to_ready(sessions)
    caplog.set_level(logging.INFO)
    sessions.update_pod(ALICE, cost_per_hour_usd=0.7, gpu_type="another name for it")
    assert sessions.get(ALICE).pod == replace(POD, cost_per_hour_usd=0.7)
    sessions.update_pod(ALICE, cost_per_hour_usd=None, gpu_type=None)
    assert sessions.get(ALICE).pod == replace(POD, cost_per_hour_usd=0.7)
    sessions.update_pod(BOB, cost_per_hour_usd=1.0, gpu_type=None)
    assert sessions.get(BOB).pod is None
    assert not caplog.records


async def test_saves_count_versions_and_the_end_is_saved_too(sessions: Sessions, store: FakeStore) -> None:
    lead_to_ready(sessions)
    await sessions.save(ALICE)
    assert (store.rows[ALICE].version, store.rows[ALICE].state) == (1, State.READY)
    for event in (Event.VANISHED, Event.ENDED):
        sessions.apply(ALICE, event, "test")
        await sessions.save(ALICE)
    assert (store.rows[ALICE].version, store.rows[ALICE].state) == (3, State.SHARED)


async def test_saves_of_one_user_go_one_after_another_and_write_the_newest(
    sessions: Sessions, store: FakeStore, clock: FakeClock
) -> None:
    store.call_s = 1
    tasks = Tasks("test")
    lead_to_ready(sessions)
    tasks.start(sessions.save(ALICE), name="one")
    sessions.apply(ALICE, Event.IDLE, "test")
    tasks.start(sessions.save(ALICE), name="two")
    tasks.start(sessions.save(BOB), name="three")
    await clock.advance(1)
    assert store.rows[ALICE].state is State.READY
    assert BOB in store.rows
    await clock.advance(1)
    assert (store.rows[ALICE].state, store.rows[ALICE].version) == (State.DRAINING, 2)
    await tasks.aclose()


async def test_a_cancelled_save_lets_the_next_one_in(
    sessions: Sessions, store: FakeStore, clock: FakeClock
) -> None:
    store.call_s = 1
    tasks = Tasks("test")
    lead_to_ready(sessions)
    first = tasks.start(sessions.save(ALICE), name="one")
    first.cancel()
    tasks.start(sessions.save(ALICE), name="two")
    await clock.advance(2)
    assert store.rows[ALICE].state is State.READY
    await tasks.aclose()


@pytest.mark.parametrize("last", [State.READY, State.SHARED])
async def test_a_write_that_arrived_unheard_is_caught_up_with(
    sessions: Sessions, store: FakeStore, last: State
) -> None:
    lead_to_ready(sessions)
    await sessions.save(ALICE)
    if last is State.SHARED:
        for event in (Event.VANISHED, Event.ENDED):
            sessions.apply(ALICE, event, "test")
    store.lost_answers = 1
    with pytest.raises(StoreUnavailable):
        await sessions.save(ALICE)
    await sessions.save(ALICE)
    assert (store.rows[ALICE].state, store.rows[ALICE].version) == (last, 3)


async def test_a_user_with_another_gateways_pod_is_not_written_over(
    sessions: Sessions, store: FakeStore, clock: FakeClock
) -> None:
    lead_to_ready(sessions)
    await sessions.save(ALICE)
    theirs = Session(ALICE, State.READY, clock.now(), replace(POD, name="comfy-gw-alice-b7"), version=9)
    store.rows[ALICE] = theirs
    with pytest.raises(StaleRecord, match="another pod, comfy-gw-alice-b7"):
        await sessions.save(ALICE)
    assert store.rows[ALICE] is theirs


async def test_loading_takes_all_over_and_believes_no_ready_pod(
    sessions: Sessions, store: FakeStore, routes: Routes, clock: FakeClock
) -> None:
    lead_to_ready(sessions, ALICE)
    lead_to_ready(sessions, BOB)
    sessions.apply(BOB, Event.IDLE, "test")
    await sessions.save(ALICE)
    await sessions.save(BOB)

    later = made(store, Routes(duty(), lambda _user: duty()), clock)
    loaded = {session.user: session for session in await later.load()}
    assert {user: session.state for user, session in loaded.items()} == {
        ALICE: State.CHECKING,
        BOB: State.DRAINING,
    }
    assert loaded[ALICE].pod == POD
    later.apply(ALICE, Event.VERIFIED, "test")
    await later.save(ALICE)
    assert store.rows[ALICE].version == 2


async def test_loading_says_when_the_store_does_not_answer(sessions: Sessions, store: FakeStore) -> None:
    store.is_down = True
    with pytest.raises(StoreUnavailable):
        await sessions.load()


async def test_all_users_may_change_while_sessions_are_walked_through(world: World) -> None:
    await world.ready(ALICE)
    for session in world.sessions:
        world.burst(BOB)
        await asyncio.sleep(0)
        assert session.user == ALICE
