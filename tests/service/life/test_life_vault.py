"""The end of a pod waits for its files, on the fake clock."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.service.life.life import GONE_S
from tests.service.world import ALICE, World


async def test_a_pod_ends_only_when_its_files_are_safe(world: World) -> None:
    world.vault.takes_s = 40
    pod = await world.ready()
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.DRAINING, step_s=0.25)
    assert world.routes.private(ALICE) is None
    took_s = await world.until(State.TERMINATING, step_s=0.25)
    assert 40 <= took_s <= 42
    assert world.vault.safe == [pod.name]
    assert world.vault.asked[0] == (pod.name, world.rules.vault_deadline_s, None)
    await world.until(State.SHARED)
    assert not world.cloud.living()


async def test_files_that_are_never_safe_hold_a_pod_until_the_deadline(world: World) -> None:
    world.vault.takes_s = 10_000
    await world.ready()
    world.signals.send(ALICE, Event.STOPPED, "test")
    await world.until(State.DRAINING, step_s=0.25)
    took_s = await world.until(State.TERMINATING, within_s=1000)
    assert 300 <= took_s <= 303


async def test_a_pod_that_vanishes_meanwhile_is_waited_for_no_longer(world: World) -> None:
    world.vault.takes_s = 100
    pod = await world.ready()
    world.signals.send(ALICE, Event.STOPPED, "test")
    await world.until(State.DRAINING, step_s=0.25)
    await world.clock.advance(10)
    world.signals.send(ALICE, Event.VANISHED, "test")
    await world.clock.settle()
    assert world.state() is State.TERMINATING
    await world.clock.settle()
    assert world.vault.asked[-1] == (pod.name, world.rules.vault_deadline_s, GONE_S)


async def test_a_pod_whose_comfyui_has_died_is_asked_for_its_files_once_more(world: World) -> None:
    pod = await world.ready()
    world.signals.send(ALICE, Event.VANISHED, "ComfyUI does not answer")
    await world.until(State.SHARED)
    assert world.vault.asked == [(pod.name, world.rules.vault_deadline_s, GONE_S)]


async def test_a_pod_that_never_served_owes_nothing(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.COOLING)
    assert world.vault.asked == []


async def test_a_pod_that_does_not_come_back_after_a_restart_is_asked_for_its_files(world: World) -> None:
    pod = await world.ready()
    world.servers.mood(pod.id).is_healthy = False
    await world.restart()
    await world.until(State.SHARED)
    assert world.vault.asked == [(pod.name, world.rules.vault_deadline_s, GONE_S)]


async def test_a_pod_from_which_something_is_copied_is_not_idle(world: World) -> None:
    pod = await world.ready()
    world.vault.copies[pod.name] = 1
    await world.clock.advance(2000)
    assert world.state() is State.READY


async def test_a_pod_that_was_idle_while_it_was_copied_from_ends_as_soon_as_that_is_done(
    world: World,
) -> None:
    pod = await world.ready()
    world.vault.copies[pod.name] = 1
    await world.clock.advance(2000)
    world.vault.copies[pod.name] = 0
    took_s = await world.clock.advance_until(lambda: world.routes.private(ALICE) is None, within_s=1200)
    assert took_s <= 61


async def test_a_fault_of_the_vault_costs_no_money(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.vault.fault = RuntimeError("a bug")
    await world.ready()
    world.signals.send(ALICE, Event.STOPPED, "test")
    await world.until(State.SHARED, within_s=60)
    assert not world.cloud.living()
    assert any(
        line.levelno == logging.ERROR and "may not be safe" in line.getMessage() for line in caplog.records
    )
