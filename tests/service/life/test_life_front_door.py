"""Before a pod is used the gateway knocks at its front door without the token."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.pods.front_door import OPEN_CAUSE
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, World, with_rules


async def test_an_open_pod_is_refused_and_ended_and_another_is_tried(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.servers.usual.is_open = True
    world.burst()
    await world.until(State.ABANDONING)
    assert Event.HEALTHY not in world.events()
    assert world.routes.private(ALICE) is None
    refusals = [record for record in caplog.records if OPEN_CAUSE in record.message]
    assert any(record.levelno == logging.ERROR for record in refusals)
    world.servers.usual.is_open = False
    await world.until(State.COOLING)
    (first,) = world.cloud.pods
    assert first.ended_s is not None
    await world.until(State.SHARED)
    world.burst()
    await world.until(State.READY)
    assert len(world.cloud.pods) == 2


async def test_an_open_pod_is_used_with_a_loud_warning_where_that_is_allowed(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(clock, rules=with_rules(allows_open_pods=True))
    world.servers.usual.is_open = True
    await world.ready()
    assert [r.levelno for r in caplog.records if OPEN_CAUSE in r.message] == [logging.WARNING]
    await world.stop()


async def test_no_answer_to_the_knock_proves_nothing_and_is_asked_again(world: World) -> None:
    world.servers.usual.knock_status = None
    world.burst()
    await world.until(State.BOOTING)
    await world.clock.advance(100)
    assert world.state() is State.BOOTING
    for mood in (world.servers.usual, *world.servers.moods.values()):
        mood.knock_status = 403
    await world.until(State.READY)
