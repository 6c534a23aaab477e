"""The life of a user's private pod, as a table.

Rules that the table states:

* A user has one session. It is ``SHARED`` until a burst; only from there can a pod be asked for, so two pods
  for one user cannot be asked for.
* Traffic goes to the pod in ``READY`` alone (``ROUTED``). The route goes first, the pod second.
* A pod may be costing money in every state of ``MAY_BILL``. The only way out of them is ``ENDED``: the cloud
  itself has confirmed that the pod is gone. A refused create leaves by ``REFUSED``, for nothing was made.
* A boot that failed is ended like any other pod (``ABANDONING``) and then cools down before the next try.

``TRANSITIONS`` is everything. An event that has no row raises IllegalTransition and changes nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from comfy_gateway.core.errors import IllegalTransition
from comfy_gateway.core.people.users import UserId


class State(StrEnum):
    """Where a session stands."""

    SHARED = "shared"
    REQUESTED = "requested"
    CREATING = "creating"
    BOOTING = "booting"
    VERIFYING = "verifying"
    READY = "ready"
    DRAINING = "draining"
    TERMINATING = "terminating"
    ABANDONING = "abandoning"
    COOLING = "cooling"
    CHECKING = "checking"


class Event(StrEnum):
    """What can happen to a session."""

    BURST = "burst"
    """The user has earned a pod."""
    ORDERED = "ordered"
    """The attempt is written down; the create call goes out next."""
    CREATED = "created"
    """The cloud has named the pod."""
    REFUSED = "refused"
    """No pod was made, and that is certain."""
    HEALTHY = "healthy"
    """ComfyUI in the pod answers."""
    AGENT_ANSWERED = "agent_answered"
    AGENT_ABSENT = "agent_absent"
    """The agent stayed silent for as long as we wait for it; the pod is used all the same."""
    FAILED = "failed"
    """The boot missed its deadline, or the pod broke while it started."""
    VANISHED = "vanished"
    """The cloud says that the pod does not exist or does not run any more, or ComfyUI in it is dead."""
    IDLE = "idle"
    DRAINED = "drained"
    """Nothing of the user runs on the pod any more."""
    STOPPED = "stopped"
    """A person, or the gateway's own end, wants the pod gone."""
    ENDED = "ended"
    """The cloud has confirmed that the pod is gone."""
    COOLED = "cooled"
    VERIFIED = "verified"
    """After a restart of the gateway the pod was found alive and healthy."""


_S = State
_E = Event

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (_S.SHARED, _E.BURST): _S.REQUESTED,
    (_S.REQUESTED, _E.ORDERED): _S.CREATING,
    (_S.REQUESTED, _E.REFUSED): _S.COOLING,
    (_S.REQUESTED, _E.STOPPED): _S.SHARED,
    (_S.CREATING, _E.CREATED): _S.BOOTING,
    (_S.CREATING, _E.REFUSED): _S.COOLING,
    (_S.BOOTING, _E.HEALTHY): _S.VERIFYING,
    (_S.BOOTING, _E.FAILED): _S.ABANDONING,
    (_S.BOOTING, _E.VANISHED): _S.ABANDONING,
    (_S.BOOTING, _E.STOPPED): _S.TERMINATING,
    (_S.VERIFYING, _E.AGENT_ANSWERED): _S.READY,
    (_S.VERIFYING, _E.AGENT_ABSENT): _S.READY,
    (_S.VERIFYING, _E.FAILED): _S.ABANDONING,
    (_S.VERIFYING, _E.VANISHED): _S.ABANDONING,
    (_S.VERIFYING, _E.STOPPED): _S.TERMINATING,
    (_S.READY, _E.IDLE): _S.DRAINING,
    (_S.READY, _E.VANISHED): _S.TERMINATING,
    (_S.READY, _E.STOPPED): _S.DRAINING,
    (_S.DRAINING, _E.DRAINED): _S.TERMINATING,
    (_S.DRAINING, _E.VANISHED): _S.TERMINATING,
    (_S.DRAINING, _E.STOPPED): _S.TERMINATING,
    (_S.TERMINATING, _E.ENDED): _S.SHARED,
    (_S.ABANDONING, _E.ENDED): _S.COOLING,
    (_S.COOLING, _E.COOLED): _S.SHARED,
    (_S.CHECKING, _E.VERIFIED): _S.READY,
    (_S.CHECKING, _E.FAILED): _S.TERMINATING,
    (_S.CHECKING, _E.VANISHED): _S.TERMINATING,
    (_S.CHECKING, _E.STOPPED): _S.TERMINATING,
}

STARTING: Final[frozenset[State]] = frozenset(
    {State.REQUESTED, State.CREATING, State.BOOTING, State.VERIFYING}
)
"""States of a session whose pod is on its way."""

ROUTED: Final[frozenset[State]] = frozenset({State.READY})
"""States in which new traffic of the user goes to the pod."""

MAY_BILL: Final[frozenset[State]] = frozenset(
    {
        State.CREATING,
        State.BOOTING,
        State.VERIFYING,
        State.READY,
        State.DRAINING,
        State.TERMINATING,
        State.ABANDONING,
        State.CHECKING,
    }
)
"""States in which a pod may exist."""

COUNTED: Final[frozenset[State]] = MAY_BILL | {State.REQUESTED}
"""States that count against the cap on private pods."""


PODLESS: Final[frozenset[State]] = frozenset(
    {State.SHARED, State.COOLING, State.TERMINATING, State.ABANDONING}
)
"""States in which nothing can end on a pod any more, though it may still cost money."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One attempt at a private pod. ``pod_id`` is None until the cloud has named it."""

    name: str
    attempt: str
    ordered_at: datetime
    """UTC."""
    pod_id: str | None = None
    gpu_type: str | None = None
    cost_per_hour_usd: float | None = None
    """What the cloud says it costs, or None while it has not said."""


@dataclass(frozen=True, slots=True)
class Session:
    """A user's session. Frozen: every change is a new value, made by ``advance`` and the table."""

    user: UserId
    state: State
    since: datetime
    """UTC time of the last transition."""
    pod: Pod | None = None
    version: int = 0
    """Counts saves; a save names the version that it replaces."""

    @property
    def is_routed(self) -> bool:
        """Whether new traffic of this user goes to the pod."""
        return self.state in ROUTED


def advance(session: Session, event: Event, now: datetime, *, pod: Pod | None = None) -> Session:
    """The session after an event, with the pod replaced where one is given.

    ``SHARED`` and ``COOLING`` have no pod. Raises IllegalTransition where the table has no row.
    """
    try:
        state = TRANSITIONS[session.state, event]
    except KeyError:
        raise IllegalTransition(f"{event} does not happen to a session that is {session.state}") from None
    keeps_pod = state in COUNTED
    return replace(session, state=state, since=now, pod=(pod or session.pod) if keeps_pod else None)
