"""Alarms go to the log and the counters at once, and to people by a task that waits for nobody."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from comfy_gateway.core.errors import AlarmUnsent
from comfy_gateway.core.money.alarms import Alarm, AlarmKind, Repeats
from comfy_gateway.core.ports import AlarmSender, Clock

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 100
WAITS_S: Final = (5.0, 30.0, 120.0)
"""Between the tries to send one alarm."""


def log_alarm(alarm: Alarm) -> None:
    """To the log and nowhere else."""
    logger.log(logging.WARNING if alarm.is_warning else logging.ERROR, "RunPod session: %s", alarm.text)


class Alarms:
    """``count(kind)`` is called for each alarm; ``senders`` may be none."""

    def __init__(
        self, *, senders: Sequence[AlarmSender], count: Callable[[AlarmKind], None], clock: Clock
    ) -> None:
        self._senders = tuple(senders)
        self._count = count
        self._clock = clock
        self._repeats = Repeats()
        self._waiting: deque[Alarm] = deque(maxlen=MOST_WAITING)
        self._came = asyncio.Event()

    def tell(self, alarm: Alarm) -> None:
        """Somebody must hear of this."""
        log_alarm(alarm)
        self._count(alarm.kind)
        if self._senders and self._repeats.is_due(alarm, self._clock.monotonic()):
            self._waiting.append(alarm)  # of too many the oldest goes: it is in the log
            self._came.set()

    async def run(self) -> None:
        """Send what waits, for ever."""
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting:
                alarm = self._waiting.popleft()
                # One address that does not answer must not hold up the others.
                await asyncio.gather(*(self._send(sender, alarm) for sender in self._senders))

    async def _send(self, sender: AlarmSender, alarm: Alarm) -> None:
        title = f"Comfy gateway: {'warning' if alarm.is_warning else 'alarm'} ({alarm.kind})"
        for wait_s in (*WAITS_S, None):
            try:
                await sender.send(title, alarm.text)
            except AlarmUnsent as error:
                if wait_s is None:
                    logger.warning("alarm (%s) reached nobody at %s: %s", alarm.kind, sender.name, error)
                    return
                await self._clock.sleep(wait_s)
            else:
                return
