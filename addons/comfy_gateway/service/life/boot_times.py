"""How long our own pods took to start, as the store has it and as it happens."""

import logging
from collections import deque
from typing import Final

from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.life.eta import Eta, Start, estimate
from comfy_gateway.core.life.session import Event, Session, State
from comfy_gateway.core.ports import Clock, SessionStore

logger = logging.getLogger(__name__)

NEWEST: Final = 500
"""Starts that are remembered: images and clouds change."""
RETRY_S: Final = 60.0


class BootTimes:
    """``session_moved`` is to be called after each transition."""

    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._starts: deque[Start] = deque(maxlen=NEWEST)

    def eta(self, gpu_type: str | None, age_s: float) -> Eta | None:
        """How much longer a pod takes that was ordered so long ago; None where too little is known."""
        return estimate(self._starts, gpu_type, age_s=age_s)

    def session_moved(self, before: Session, after: Session, _event: Event) -> None:
        """A pod that has come through its start is one more to tell by."""
        if before.state is State.VERIFYING and after.state is State.READY and after.pod is not None:
            seconds = (after.since - after.pod.ordered_at).total_seconds()
            if seconds > 0:
                self._starts.append(Start(after.pod.gpu_type, seconds))

    async def load(self) -> None:
        """Read what the store has, in front of what was seen meanwhile; tried again until the store answers."""
        while True:
            try:
                stored = await self._store.starts(newest=NEWEST)
            except StoreError as error:
                logger.warning("how long pods take to start is not known yet: %s", error)
                await self._clock.sleep(RETRY_S)
            else:
                # What was seen while the store was down may be in it by now as well; it then counts twice.
                self._starts.extendleft(reversed(stored[: NEWEST - len(self._starts)]))
                return
