"""All sessions: the one place where a session changes, is logged, routed and saved."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from comfy_gateway.core.errors import StaleRecord
from comfy_gateway.core.life.session import (
    COUNTED,
    MAY_BILL,
    PODLESS,
    ROUTED,
    Event,
    Pod,
    Session,
    State,
    advance,
)
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, SessionStore
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

Watcher = Callable[[Session, Session, Event], None]
Listener = Callable[[Session, Session, Event, str], None]


class Sessions:
    """The registry. ``apply`` is synchronous, so that nothing can come between a decision and its route."""

    def __init__(
        self,
        *,
        store: SessionStore,
        routes: Routes,
        clock: Clock,
        backend_of: Callable[[Pod], Backend],
    ) -> None:
        self._store = store
        self._routes = routes
        self._clock = clock
        self._backend_of = backend_of
        self._sessions: dict[UserId, Session] = {}
        self._versions: dict[UserId, int] = {}
        self._written_pods: dict[UserId, str] = {}
        """Name of the pod that was last tried to write."""
        self._saving: dict[UserId, asyncio.Lock] = {}
        self._watchers: list[Watcher] = []
        self._listeners: list[Listener] = []

    def get(self, user: UserId) -> Session:
        """The user's session; a user who was never seen is SHARED."""
        return self._sessions.get(user) or Session(user, State.SHARED, self._clock.now())

    def __iter__(self) -> Iterator[Session]:
        """Every session that is not plainly SHARED."""
        return iter(tuple(self._sessions.values()))

    def counted(self, *, but: UserId | None = None) -> list[Session]:
        """Sessions that count against the caps, without the one of ``but``."""
        return [session for session in self if session.state in COUNTED and session.user != but]

    def billing(self) -> list[Session]:
        """Sessions whose pod may be costing money."""
        return [session for session in self if session.state in MAY_BILL]

    def has_living_pod(self, pod_name: str) -> bool:
        """Whether a session still hopes for something from the pod of that name."""
        return any(
            session.pod is not None and session.pod.name == pod_name and session.state not in PODLESS
            for session in self
        )

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher(before, after, event)`` called after each transition, synchronously."""
        self._watchers.append(watcher)

    def listen(self, listener: Listener) -> None:
        """Have ``listener(before, after, event, cause)`` called after each transition, before the watchers."""
        self._listeners.append(listener)

    def apply(self, user: UserId, event: Event, cause: str, *, pod: Pod | None = None) -> Session:
        """Move a session by an event: memory, route and log at once; ``save`` makes it durable.

        Raises IllegalTransition and changes nothing where the table has no such row.
        """
        before = self.get(user)
        after = advance(before, event, self._clock.now(), pod=pod)
        backend = self._backend_of(after.pod) if after.state in ROUTED and after.pod is not None else None
        self._put(after)
        if backend is not None:
            self._routes.set_private(user, backend)
        elif after.state is State.DRAINING:
            self._routes.retire_private(user)
        else:
            self._routes.clear_private(user)
        shown = after.pod or before.pod
        logger.info(
            "RunPod session %s: %s -> %s, pod %s, after %.1f s: %s",
            user.key,
            before.state,
            after.state,
            shown.name if shown else "none",
            (after.since - before.since).total_seconds(),
            cause,
        )
        for listener in self._listeners:
            listener(before, after, event, cause)
        for watcher in self._watchers:
            watcher(before, after, event)
        return after

    def update_pod(self, user: UserId, *, cost_per_hour_usd: float | None, gpu_type: str | None) -> bool:
        """Keep what the cloud's list says of a living pod. Not a transition. True when it is to be stored."""
        session = self.get(user)
        if session.pod is None:
            return False
        pod = replace(
            session.pod,
            cost_per_hour_usd=session.pod.cost_per_hour_usd
            if cost_per_hour_usd is None
            else cost_per_hour_usd,
            gpu_type=session.pod.gpu_type or gpu_type,
        )
        self._put(replace(session, pod=pod))
        return pod != session.pod

    async def load(self) -> list[Session]:
        """Take over what the store has; READY sessions must prove themselves again. Raises StoreUnavailable."""
        for stored in await self._store.load_sessions():
            is_unproven = stored.state is State.READY
            self._put(replace(stored, state=State.CHECKING) if is_unproven else stored)
            self._versions[stored.user] = stored.version
            if stored.pod is not None:
                self._written_pods[stored.user] = stored.pod.name
        return list(self)

    async def save(self, user: UserId) -> None:
        """Write the session as it is now. Raises StoreUnavailable, or StaleRecord if another gateway gave the user
        another pod.
        """
        lock = self._saving.setdefault(user, asyncio.Lock())
        async with lock:
            try:
                await self._write(user)
            except StaleRecord:
                await self._catch_up(user)
                await self._write(user)

    async def _write(self, user: UserId) -> None:
        session = replace(self.get(user), version=self._versions.get(user, 0))
        if session.pod is not None:
            self._written_pods[user] = session.pod.name
        saved = await self._store.save_session(session)
        self._versions[user] = saved.version

    async def _catch_up(self, user: UserId) -> None:
        """Take over the stored version where the stored session is ours: a write of which we heard nothing arrived.

        Raises StaleRecord where it is not.
        """
        stored = next((one for one in await self._store.load_sessions() if one.user == user), None)
        if stored is not None and stored.pod is not None and stored.pod.name != self._written_pods.get(user):
            raise StaleRecord(f"{user.key} has another pod, {stored.pod.name}, by another gateway")
        self._versions[user] = stored.version if stored is not None else 0

    def _put(self, session: Session) -> None:
        if session.state is State.SHARED:
            self._sessions.pop(session.user, None)
        else:
            self._sessions[session.user] = session
