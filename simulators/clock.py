"""Time for the simulators: real, or a dial that a test turns.

Simulated pods boot, bill and die by this clock. Their state is always computed from `monotonic()`, so a test
that calls `FakeClock.advance(600)` sees the pod ten minutes older on the next line, without waiting.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Alarm(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Forget the callback; harmless when it has already run."""


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. For durations."""

    def time(self) -> float:
        """Seconds since the epoch. For what is shown to people."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Alarm:
        """Run `callback` once, `delay_s` from now, in the event loop's thread."""

    async def sleep(self, delay_s: float) -> None:
        """Return after `delay_s` of this clock's time."""


class RealClock:
    """The machine's clock. `call_later` and `sleep` need a running event loop."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Alarm:
        return asyncio.get_running_loop().call_later(delay_s, callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class _FakeAlarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Stands still until `advance` is called.

    Alarms run inside `advance`, in the order in which they are due and at the time at which they are due.
    Not thread-safe: call `advance` from the event loop's thread.
    """

    def __init__(self, start_s: float = 1000.0, epoch_s: float = 1_795_444_723.0) -> None:
        self._now_s = start_s
        self._epoch_offset_s = epoch_s - start_s
        self._order = itertools.count()
        self._alarms: list[tuple[float, int, _FakeAlarm]] = []

    def monotonic(self) -> float:
        return self._now_s

    def time(self) -> float:
        return self._now_s + self._epoch_offset_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Alarm:
        alarm = _FakeAlarm(callback)
        heapq.heappush(self._alarms, (self._now_s + max(0.0, delay_s), next(self._order), alarm))
        return alarm

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        alarm = self.call_later(delay_s, lambda: None if awake.done() else awake.set_result(None))
        try:
            await awake
        finally:
            alarm.cancel()

    def advance(self, seconds: float) -> None:
        """Move time forward and run what falls due on the way. ValueError if `seconds` is negative."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        until_s = self._now_s + seconds
        while self._alarms and self._alarms[0][0] <= until_s:
            due_s, _, alarm = heapq.heappop(self._alarms)
            self._now_s = max(self._now_s, due_s)
            callback, alarm.callback = alarm.callback, None
            if callback is not None:
                callback()
        self._now_s = until_s
