"""Words from outside to the task of a session."""

import pytest

from comfy_gateway.core.session import Event
from comfy_gateway.service.signals import Signal, Signals
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB


class Pausing:
    """A pause in a task of its own."""

    def __init__(self, signals: Signals, tasks: Tasks, seconds: float) -> None:
        self.is_over = False
        self._signals = signals
        self.task = tasks.start(self._run(seconds), name="pausing")

    async def _run(self, seconds: float) -> None:
        await self._signals.pause(ALICE, seconds)
        self.is_over = True


@pytest.fixture
def tasks() -> Tasks:
    return Tasks("test")


@pytest.fixture
def signals(clock: FakeClock, tasks: Tasks) -> Signals:
    return Signals(clock, tasks)


async def test_a_signal_is_taken_once_and_by_its_user(signals: Signals) -> None:
    signals.send(ALICE, Event.STOPPED, "why")
    assert signals.take(BOB) is None
    assert signals.take(ALICE) == Signal(Event.STOPPED, "why")
    assert signals.take(ALICE) is None


async def test_a_later_signal_replaces_the_one_that_waits(signals: Signals) -> None:
    signals.send(ALICE, Event.STOPPED, "one")
    signals.send(ALICE, Event.VANISHED, "two")
    assert signals.take(ALICE) == Signal(Event.VANISHED, "two")


async def test_a_pause_lasts_its_time(signals: Signals, tasks: Tasks, clock: FakeClock) -> None:
    pausing = Pausing(signals, tasks, 10)
    await clock.advance(9.9)
    assert not pausing.is_over
    await clock.advance(0.1)
    assert pausing.is_over


async def test_a_signal_ends_the_pause_of_its_user_at_once(
    signals: Signals, tasks: Tasks, clock: FakeClock
) -> None:
    pausing = Pausing(signals, tasks, 10)
    signals.send(BOB, Event.STOPPED, "why")
    await clock.settle()
    assert not pausing.is_over
    signals.send(ALICE, Event.STOPPED, "why")
    await clock.settle()
    assert pausing.is_over
    assert clock.sleepers == 0


async def test_no_pause_begins_while_a_signal_waits(signals: Signals, tasks: Tasks, clock: FakeClock) -> None:
    signals.send(ALICE, Event.STOPPED, "why")
    pausing = Pausing(signals, tasks, 10)
    await clock.settle()
    assert pausing.is_over
    assert signals.take(ALICE) is not None


async def test_a_cancelled_pause_leaves_nothing_behind(
    signals: Signals, tasks: Tasks, clock: FakeClock
) -> None:
    pausing = Pausing(signals, tasks, 10)
    pausing.task.cancel()
    await clock.settle()
    assert not pausing.is_over
    assert clock.sleepers == 0
    assert not signals._wakers
