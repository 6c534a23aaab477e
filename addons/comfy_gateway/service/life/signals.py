"""Words from outside to the task that lives a session: the cloud's list, an operator, the gateway's end."""

import asyncio
from dataclasses import dataclass

from comfy_gateway.core.life.session import Event
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
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
        self._nudged: set[UserId] = set()
        self._heedful: set[UserId] = set()
        """Whose pause a nudge ends at this moment."""

    def send(self, user: UserId, event: Event, cause: str) -> None:
        """Leave a signal and wake the session's task if it pauses."""
        self._waiting[user] = Signal(event, cause)
        if waker := self._wakers.get(user):
            waker.set()

    def nudge(self, user: UserId) -> None:
        """Something looks wrong: shorten the pause of the session's task, or the next one. Says nothing of what is."""
        self._nudged.add(user)
        if user in self._heedful and (waker := self._wakers.get(user)):
            waker.set()

    def take(self, user: UserId) -> Signal | None:
        """The waiting signal, which is then gone; None when there is none."""
        return self._waiting.pop(user, None)

    async def pause(self, user: UserId, seconds: float, *, nudge_after_s: float = 0.0) -> None:
        """Return after so many seconds, or at once when a signal waits or arrives. One pause a user at a time.

        A nudge, also one from before the pause, ends it as soon as ``nudge_after_s`` are over: whoever nudges all the
        time gets no more than that.
        """
        deaf_s = min(seconds, nudge_after_s)
        try:
            if deaf_s and await self._wait(user, deaf_s):
                return
            if user not in self._nudged:
                self._heedful.add(user)
                await self._wait(user, seconds - deaf_s)
        finally:
            self._heedful.discard(user)
            self._nudged.discard(user)

    async def _wait(self, user: UserId, seconds: float) -> bool:
        """Whether something else than the time ended it."""
        if user in self._waiting:
            return True
        waker = self._wakers[user] = asyncio.Event()
        alarm = self._tasks.start(self._ring(seconds, waker), name=f"pause of {user.key}")
        try:
            await waker.wait()
            return not alarm.done()
        finally:
            alarm.cancel()
            self._wakers.pop(user, None)

    async def _ring(self, seconds: float, waker: asyncio.Event) -> None:
        await self._clock.sleep(seconds)
        waker.set()
