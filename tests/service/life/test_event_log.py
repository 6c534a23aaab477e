"""The newest transitions with their causes."""

from datetime import timedelta

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.service.life.event_log import EventFilter, EventLog
from tests.service.world import ALICE, BOB, World


async def test_transitions_are_found_newest_first_by_everything_that_is_asked(world: World) -> None:
    log = EventLog(world.clock)
    world.sessions.listen(log.happened)
    begin = world.clock.now()
    await world.ready()
    middle = world.clock.now()
    await world.ready(BOB)
    everything = list(log.find(EventFilter()))
    assert [one.number for one in everything] == sorted((one.number for one in everything), reverse=True)
    assert {one.user for one in log.find(EventFilter(user="alice"))} == {ALICE}
    assert {one.user for one in log.find(EventFilter(user="named:bob"))} == {BOB}
    assert [one.after for one in log.find(EventFilter(user="bob", event=Event.HEALTHY))] == [State.VERIFYING]
    ready = list(log.find(EventFilter(state=State.READY)))
    assert [one.user for one in ready] == [BOB, ALICE]
    assert ready[0].cause == "ComfyUI and the agent answer"
    assert ready[0].pod == world.pod(BOB).name
    assert list(log.find(EventFilter(before=ready[1].number, state=State.READY))) == []
    assert {one.user for one in log.find(EventFilter(since=middle + timedelta(seconds=1)))} == {BOB}
    assert list(log.find(EventFilter(until=begin))) == []
    assert log.cause(ALICE) == "ComfyUI and the agent answer"


async def test_so_many_are_kept_and_what_became_shared_has_no_cause(world: World) -> None:
    log = EventLog(world.clock, most=3)
    world.sessions.listen(log.happened)
    await world.ready()
    assert len(list(log.find(EventFilter()))) == 3
    world.signals.send(ALICE, Event.STOPPED, "as a test wants it")
    await world.until(State.SHARED)
    assert log.cause(ALICE) is None
    assert next(log.find(EventFilter())).event is Event.ENDED
