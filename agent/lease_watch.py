"""Asks the rule of the lease again and again, and ends the pod when it says so."""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from agent.clock import Clock
from agent.comfyui import Queue
from agent.lease import Facts, Terms, Verdict, decide, ran_out

logger = logging.getLogger(__name__)

MOST_LOOK_S = 15.0
FIRST_BACKOFF_S = 10.0
MOST_BACKOFF_S = 300.0


class Ending(Protocol):
    """Ends the pod that we run in."""

    async def end(self) -> bool:
        """Try every way once. Whether the pod is known to be gone; False: unknown or still there. Never raises."""


class LeaseWatch:
    """One pod's lease. `renew` is called for every request that renews it.

    queue      ComfyUI's queue as last heard, None where it does not answer
    unfetched  counts the files that nobody has; may raise OSError; asked only when the lease ran out
    """

    def __init__(
        self,
        terms: Terms,
        clock: Clock,
        *,
        queue: Callable[[], Queue | None],
        unfetched: Callable[[], Awaitable[int]],
        ending: Ending,
    ) -> None:
        self._terms = terms
        self._clock = clock
        self._queue = queue
        self._unfetched = unfetched
        self._ending = ending
        self._started_s = clock.monotonic()
        self._renewed_s: float | None = None
        self._heard_s: float | None = None
        self._verdict: Verdict | None = None
        self._look_s = min(MOST_LOOK_S, terms.lease_s / 10)

    def renew(self) -> None:
        self._renewed_s = self._clock.monotonic()

    async def run(self) -> None:
        """For ever, also when the pod seems to be gone: the agent never exits by itself, since an exit makes RunPod
        start the container again, and bill it."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            pause_s = self._look_s
            try:
                if (await self._look()).is_end:
                    is_gone = await self._ending.end()
                    logger.warning(
                        "The pod %s", "is gone" if is_gone else f"lives on; again in {backoff_s:g} s"
                    )
                    pause_s, backoff_s = backoff_s, min(2 * backoff_s, MOST_BACKOFF_S)
                else:
                    backoff_s = FIRST_BACKOFF_S
            except Exception:
                logger.exception("the lease could not be looked at")
            await self._clock.sleep(pause_s)

    async def _look(self) -> Verdict:
        facts = self._facts(0)
        if ran_out(facts, self._terms):
            facts = self._facts(await self._count())
        verdict = decide(facts, self._terms)
        if verdict is not self._verdict:
            first, self._verdict = self._verdict is None, verdict
            alone_s = facts.now_s - (self._started_s if facts.renewed_s is None else facts.renewed_s)
            level = logging.INFO if first or verdict is Verdict.HELD else logging.WARNING
            logger.log(level, "Lease: %s (%.0f s without a renewal)", verdict.value, alone_s)
        return verdict

    async def _count(self) -> int | None:
        try:
            return await self._unfetched()
        except OSError as error:
            logger.warning("The output folder cannot be read: %s", error.strerror)
            return None

    def _facts(self, unfetched_files: int | None) -> Facts:
        """Of this moment: a renewal may have come while the files were counted."""
        queue, now_s = self._queue(), self._clock.monotonic()
        if queue is not None:
            self._heard_s = now_s
        return Facts(
            now_s=now_s,
            started_s=self._started_s,
            renewed_s=self._renewed_s,
            queue_length=None if queue is None else queue.running + queue.pending,
            queue_heard_s=self._heard_s,
            unfetched_files=unfetched_files,
        )
