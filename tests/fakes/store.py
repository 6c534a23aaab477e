"""A store in memory that survives the restart of a gateway, with an outage switch."""

import asyncio
import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from comfy_gateway.core.errors import StaleRecord, StoreUnavailable
from comfy_gateway.core.life.eta import Start
from comfy_gateway.core.life.session import Pod, Session, State
from comfy_gateway.core.money.costs import Bill
from comfy_gateway.core.people.users import UserId
from tests.fakes.clock import FakeClock


@dataclass
class PodRow:
    """One pod in the history."""

    user: UserId
    ended_at: datetime | None = None
    cause: str | None = None
    pod: Pod | None = None
    ready_at: datetime | None = None


class FakeStore:
    """Implements ``core.ports.SessionStore`` with the same rules about versions as the SQL one: a row that is
    SHARED goes on counting its versions and may be replaced by who knows none.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.rows: dict[UserId, Session] = {}
        self.pods: dict[str, PodRow] = {}
        self.strays: dict[str, datetime] = {}
        self.is_down = False
        self.is_cut = False
        """The gateway is being killed: what it sends now reaches nobody."""
        self.answer_s = 0.0
        """How long the answer to a save is on its way, after the commit."""
        self.call_s = 0.0
        """How long each call takes."""
        self.lost_answers = 0
        """So many saves are written, and then the connection breaks."""
        self.saves = 0
        self.is_closed = False

    async def load_sessions(self) -> Sequence[Session]:
        """All sessions that are not plainly SHARED."""
        await self._answer()
        return [copy.deepcopy(row) for row in self.rows.values() if row.state is not State.SHARED]

    async def save_session(self, session: Session) -> Session:
        """Raises StaleRecord for another version than the stored one."""
        await self._answer()
        stored = self.rows.get(session.user)
        is_fresh = session.version == 0 and (stored is None or stored.state is State.SHARED)
        if not is_fresh and (stored is None or stored.version != session.version):
            raise StaleRecord(f"the session of {session.user.key} was saved by somebody else")
        saved = replace(session, version=(stored.version if stored else 0) + 1)
        self.rows[session.user] = copy.deepcopy(saved)
        if session.pod is not None:
            row = self.pods.setdefault(session.pod.name, PodRow(session.user))
            row.pod = session.pod
            if session.state is State.READY and row.ready_at is None:
                row.ready_at = session.since
        self.saves += 1
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("the connection broke off after the commit")
        if self.answer_s:
            await self._clock.sleep(self.answer_s)
        return saved

    async def record_pod_end(self, user: UserId, pod_name: str, *, cause: str, at: datetime) -> None:
        """The first ending stays."""
        await self._answer()
        row = self.pods.get(pod_name)
        if row is not None and row.user == user and row.ended_at is None:
            row.ended_at, row.cause = at, cause

    async def knows_pod(self, pod_name: str) -> bool:
        """Whether a session with that pod was ever saved."""
        await self._answer()
        return pod_name in self.pods

    async def bills(self, *, since: datetime) -> Sequence[Bill]:
        """As the SQL one."""
        await self._answer()
        running = {row.pod.name for row in self.rows.values() if row.pod is not None}
        return [
            Bill(
                row.user.key, name, row.pod.gpu_type, row.pod.cost_per_hour_usd, row.pod.ordered_at, row.ended_at,
                name in running, row.cause,
            )
            for name, row in self.pods.items()
            if row.pod is not None and row.pod.pod_id is not None and (row.ended_at is None or row.ended_at > since)
        ]  # fmt: skip

    async def starts(self, *, newest: int) -> Sequence[Start]:
        """As the SQL one."""
        await self._answer()
        started = sorted(
            (row.pod.ordered_at, row.ready_at, row.pod.gpu_type or "")
            for row in self.pods.values()
            if row.pod is not None and row.ready_at is not None and row.ready_at > row.pod.ordered_at
        )
        found = [
            Start(gpu_type, (ready_at - ordered_at).total_seconds())
            for ordered_at, ready_at, gpu_type in started
        ]
        return found[-newest:]

    async def first_sight(self, pod_id: str, *, at: datetime) -> datetime:
        """The first word stays."""
        await self._answer()
        return self.strays.setdefault(pod_id, at)

    async def forget_sights(self, *, but: Collection[str]) -> None:
        """Keeps these alone."""
        await self._answer()
        self.strays = {pod_id: at for pod_id, at in self.strays.items() if pod_id in but}

    async def aclose(self) -> None:
        """Remembers it."""
        self.is_closed = True

    async def _answer(self) -> None:
        if self.is_cut:
            raise asyncio.CancelledError
        if self.call_s:
            await self._clock.sleep(self.call_s)
        if self.is_down:
            raise StoreUnavailable("the database does not answer")
