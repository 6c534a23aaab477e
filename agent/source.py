"""A reading that may stall, so that it never holds the others up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.clock import Clock

logger = logging.getLogger(__name__)

KEEP_S = 3.0
"""How long the last answer stands in for one that is late: ComfyUI is silent for a second while it loads a model."""


class Source[T]:
    """Asks at most once at a time and waits only a little for the answer.

    ask        what is asked; an exception counts as no answer and is logged
    unknown    what is told when there is no answer; given the last one, None if there never was one
    patience_s how long one `value` waits

    Owns the task of a question that is still open; `aclose` ends it.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[], Awaitable[T]],
        unknown: Callable[[T | None], T],
        clock: Clock,
        *,
        patience_s: float = 0.25,
    ) -> None:
        self._name = name
        self._ask = ask
        self._unknown = unknown
        self._clock = clock
        self._patience_s = patience_s
        self._asking: asyncio.Task[T] | None = None
        self._last: T | None = None
        self._told_at_s = clock.monotonic()
        self._is_failing = False

    async def value(self) -> T:
        """The answer, or the last one if this one is late and that one young, or what is told of the unknown."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._asked(), name=f"agent: {self._name}")
        asking = self._asking
        await asyncio.wait([asking], timeout=self._patience_s)
        if asking.done():
            self._asking = None
            return asking.result()
        if self._last is not None and self._clock.monotonic() - self._told_at_s <= KEEP_S:
            return self._last
        return self._unknown(self._last)

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _asked(self) -> T:
        try:
            told = await self._ask()
        except Exception:
            if not self._is_failing:
                logger.exception("%s cannot be read", self._name)
            self._is_failing = True
            return self._unknown(self._last)
        self._is_failing = False
        self._last, self._told_at_s = told, self._clock.monotonic()
        return told
