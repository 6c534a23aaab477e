"""Time that moves only when a test says so."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MOST_TURNS = 10_000
"""Turns of the event loop after which tasks that never come to rest are a bug."""


class FakeClock:
    """Implements ``core.ports.Clock``. Nothing waits for real time."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._now_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._now_s

    def now(self) -> datetime:
        """The start and the seconds since."""
        return self._start + timedelta(seconds=self._now_s)

    def set_wall(self, by: timedelta) -> None:
        """Somebody sets the machine's clock; the monotonic one goes on."""
        self._start += by

    async def sleep(self, seconds: float) -> None:
        """Return when the test has advanced the clock so far; others run in any case."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many sleep at this moment."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let so much time pass: sleepers wake in the order of their times, and after each one all tasks run
        until nothing is left to do at that moment.
        """
        until_s = self._now_s + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until_s:
            at_s, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._now_s = at_s
                woken.set_result(None)
                await self.settle()
        self._now_s = until_s
        await self.settle()

    async def advance_until(
        self, condition: Callable[[], bool], *, within_s: float, step_s: float = 1.0
    ) -> float:
        """Advance step by step until the condition holds; returns how many seconds that took.

        Raises TimeoutError when it does not hold after ``within_s`` seconds.
        """
        began_s = self._now_s
        await self.settle()
        while not condition():
            if self._now_s - began_s >= within_s:
                raise TimeoutError(f"nothing came of it within {within_s:g} s of the fake clock")
            await self.advance(step_s)
        return self._now_s - began_s

    async def settle(self) -> None:
        """Let all tasks run until each of them waits for time, or for something that only a test can do."""
        loop = asyncio.get_running_loop()
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
            # Exact where a number of turns would be luck. Only callbacks that are due now are in there.
            if not loop._ready:  # type: ignore[attr-defined]
                return
        raise RuntimeError("the tasks do not come to rest")
