"""Words from outside to the task of a session."""

import pytest

from comfy_gateway.core.life.session import Event
from comfy_gateway.service.life.signals import Signal, Signals
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB


class Pausing:
    """A pause in a task of its own."""

    def __init__(self, signals: Signals, tasks: Tasks, seconds: float, *, nudge_after_s: float = 0.0) -> None:
        self.is_over = False
        self._signals = signals
        self.task = tasks.start(self._run(seconds, nudge_after_s), name="pausing")

    async def _run(self, seconds: float, nudge_after_s: float) -> None:
        await self._signals.pause(ALICE, seconds, nudge_after_s=nudge_after_s)
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


async def test_a_nudge_ends_the_pause_of_its_user_and_is_no_signal(
    signals: Signals, tasks: Tasks, clock: FakeClock
) -> None:
    pausing = Pausing(signals, tasks, 10)
    signals.nudge(BOB)
    await clock.settle()
    assert not pausing.is_over
    signals.nudge(ALICE)
    await clock.settle()
    assert pausing.is_over
    assert signals.take(ALICE) is None
    assert clock.sleepers == 0


async def test_a_nudge_shortens_a_pause_no_further_than_it_may(
    signals: Signals, tasks: Tasks, clock: FakeClock
) -> None:
    pausing = Pausing(signals, tasks, 60, nudge_after_s=2)
    for _ in range(3):
        signals.nudge(ALICE)
    await clock.advance(1.9)
    assert not pausing.is_over
    await clock.advance(0.1)
    assert pausing.is_over
    later = Pausing(signals, tasks, 60, nudge_after_s=2)
    await clock.advance(59)
    assert not later.is_over, "three nudges were one"
    await clock.advance(1)
    assert later.is_over


async def test_a_nudge_that_comes_before_a_pause_is_not_lost(
    signals: Signals, tasks: Tasks, clock: FakeClock
) -> None:
    signals.nudge(ALICE)
    pausing = Pausing(signals, tasks, 60, nudge_after_s=2)
    await clock.advance(2)
    assert pausing.is_over


async def test_a_pause_that_no_nudge_may_shorten_still_ends_by_a_signal(
    signals: Signals, tasks: Tasks, clock: FakeClock
) -> None:
    pausing = Pausing(signals, tasks, 60, nudge_after_s=60)
    signals.nudge(ALICE)
    await clock.advance(59)
    assert not pausing.is_over
    signals.send(ALICE, Event.STOPPED, "why")
    await clock.settle()
    assert pausing.is_over
    assert clock.sleepers == 0
