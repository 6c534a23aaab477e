"""Logs of pods outlive the pods."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from tests.service.world import ALICE, World


async def ready(world: World) -> str:
    """Bring Alice to a pod; its name."""
    world.burst()
    await world.until(State.READY)
    return world.pod().name


async def test_the_log_of_a_pod_that_was_ended_is_kept(world: World) -> None:
    name = await ready(world)
    world.shelf.logs.clear()
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.SHARED)
    assert world.shelf.logs[name][-1] == "line 1000"
    assert len(world.shelf.logs[name]) == 500
    assert await world.logs.kept(name, 2) == ["line 999", "line 1000"]


async def test_the_log_of_a_pod_that_never_became_ready_is_kept(world: World) -> None:
    world.servers.usual.boot_s, world.servers.usual.agent_s = 10_000, -9_990
    world.burst()
    await world.until(State.BOOTING)
    name = world.pod().name
    await world.until(State.ABANDONING)
    await world.until(State.COOLING)
    assert world.shelf.logs[name][-1] == "line 1000"


async def test_a_pod_that_vanishes_has_told_its_log_before(world: World) -> None:
    name = await ready(world)
    await world.clock.advance(1)
    assert world.shelf.logs[name]


async def test_a_shelf_that_is_full_costs_a_log_and_nothing_else(world: World) -> None:
    world.shelf.is_broken = True
    name = await ready(world)
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.SHARED)
    assert not world.shelf.logs
    assert await world.logs.kept(name, 5) is None


async def test_a_shelf_that_cannot_be_read_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.shelf.is_broken = True
    with caplog.at_level(logging.WARNING):
        assert await world.logs.kept("any", 5) is None
    assert "the log that was kept of any cannot be read: Input/output error" in caplog.text
