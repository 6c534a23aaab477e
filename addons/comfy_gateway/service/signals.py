"""Words from outside to the task that lives a session: the cloud's list, an operator, the gateway's end."""

import asyncio
from dataclasses import dataclass

from comfy_gateway.core.ports import Clock
from comfy_gateway.core.session import Event
from comfy_gateway.core.users import UserId
from comfy_gateway.service.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Signal:
    """An event that somebody else saw, and why."""

    event: Event
    cause: str


class Signals:
    """At most one waiting signal a user; a later one replaces it."""

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._waiting: dict[UserId, Signal] = {}
        self._wakers: dict[UserId, asyncio.Event] = {}

    def send(self, user: UserId, event: Event, cause: str) -> None:
        """Leave a signal and wake the session's task if it pauses."""
        self._waiting[user] = Signal(event, cause)
        if waker := self._wakers.get(user):
            waker.set()

    def nudge(self, user: UserId) -> None:
        """Wake the session's task if it pauses, without a signal: something looks wrong."""
        if waker := self._wakers.get(user):
            waker.set()

    def take(self, user: UserId) -> Signal | None:
        """The waiting signal, which is then gone; None when there is none."""
        return self._waiting.pop(user, None)

    async def pause(self, user: UserId, seconds: float) -> None:
        """Return after so many seconds, or at once when a signal waits or arrives. One pause a user at a time."""
        if user in self._waiting:
            return
        waker = self._wakers[user] = asyncio.Event()
        alarm = self._tasks.start(self._ring(seconds, waker), name=f"pause of {user.key}")
        try:
            await waker.wait()
        finally:
            alarm.cancel()
            self._wakers.pop(user, None)

    async def _ring(self, seconds: float, waker: asyncio.Event) -> None:
        await self._clock.sleep(seconds)
        waker.set()
