"""The newest transitions of all sessions, with their causes. In memory: the log file has the older ones."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from comfy_gateway.core.life.session import Event, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock

MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Happened:
    """One transition."""

    number: int
    """Rises, also over restarts of the gateway."""
    at: datetime
    user: UserId
    before: State
    after: State
    event: Event
    pod: str | None
    cause: str


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Everything that is given must fit."""

    user: str | None = None
    """The user's name, or their key."""
    event: Event | None = None
    state: State | None = None
    """Before or after."""
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    """Only smaller numbers."""

    def fits(self, one: Happened) -> bool:
        """Whether it is asked for."""
        return (
            (self.user is None or self.user in {one.user.name, one.user.key})
            and (self.event is None or one.event is self.event)
            and (self.state is None or self.state in {one.before, one.after})
            and (self.since is None or one.at >= self.since)
            and (self.until is None or one.at < self.until)
            and (self.before is None or one.number < self.before)
        )


class EventLog:
    """``happened`` is to be told of each transition (``Sessions.listen``)."""

    def __init__(self, clock: Clock, *, most: int = MOST) -> None:
        # Milliseconds: no gateway has more than a thousand transitions in a second, all its life long.
        self._number = int(clock.now().timestamp() * 1000)
        self._kept: deque[Happened] = deque(maxlen=most)
        self._causes: dict[UserId, str] = {}

    def happened(self, before: Session, after: Session, event: Event, cause: str) -> None:
        """A session has moved."""
        self._number += 1
        pod = after.pod or before.pod
        self._kept.append(
            Happened(
                self._number,
                after.since,
                after.user,
                before.state,
                after.state,
                event,
                None if pod is None else pod.name,
                cause,
            )
        )
        if after.state is State.SHARED:
            self._causes.pop(after.user, None)
        else:
            self._causes[after.user] = cause

    def cause(self, user: UserId) -> str | None:
        """Why the session is in its state; None for one that is plainly SHARED or has not moved since the start."""
        return self._causes.get(user)

    def find(self, wanted: EventFilter) -> Iterator[Happened]:
        """Newest first."""
        return (one for one in reversed(self._kept) if wanted.fits(one))
