"""Keeps what pods cost within the budgets of the day, and each pod within its longest life.

A pod whose budget is spent is drained like an idle one: what runs there may end, and its user goes on working on duty.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from comfy_gateway.core.alarms import Alarm, AlarmKind
from comfy_gateway.core.budget import Budget
from comfy_gateway.core.costs import Bill, day_of, spent_by_user
from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.ports import Clock, SessionStore
from comfy_gateway.core.session import Event, Session, State
from comfy_gateway.core.users import UserId
from comfy_gateway.service.ages import Ages
from comfy_gateway.service.sessions import Sessions
from comfy_gateway.service.signals import Signals

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0
BOUND: Final = frozenset({State.BOOTING, State.VERIFYING, State.READY})
"""States in which a pod is told to end; in the later ones it does already."""


class Spending:
    """``reserve_s``: what buying a pod for nothing costs is its price for so long."""

    def __init__(
        self,
        *,
        budget: Budget,
        store: SessionStore,
        sessions: Sessions,
        signals: Signals,
        clock: Clock,
        reserve_s: float,
        tell: Callable[[Alarm], None],
    ) -> None:
        self._tell = tell
        self._budget = budget
        self._store = store
        self._sessions = sessions
        self._signals = signals
        self._clock = clock
        self._reserve_s = reserve_s
        self._ages = Ages(clock)
        self._warned: set[tuple[datetime, str]] = set()

    async def why_not(self, user: UserId, price_usd: float) -> str | None:
        """Why this user may not have a pod at that price per hour today, or None."""
        if not self._budget.is_bounded:
            return None
        try:
            spent_usd, by_user_usd = await self._spent(user)
        except StoreError as error:
            return f"what was spent today is not known: {error}"
        reserve_usd = price_usd * self._reserve_s / 3600
        return self._budget.refusal(
            spent_usd=spent_usd, spent_by_user_usd=by_user_usd, reserve_usd=reserve_usd
        )

    async def run(self) -> None:
        """Look each minute, for ever."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self.look()
            except StoreError as error:
                logger.warning("RunPod session: what was spent today is not known: %s", error)
            except Exception:
                logger.exception("RunPod session: budgets were not looked at once")

    async def look(self) -> None:
        """End what has lived or cost too much. Raises StoreError when the costs cannot be read."""
        living = [session for session in self._sessions if session.state in BOUND and session.pod is not None]
        for session in living:
            assert session.pod is not None
            age_s = self._ages.age_s(session.pod)
            if 0 < self._budget.max_lifetime_s <= age_s:
                self._end(session, f"it has lived for {age_s:.0f} s and RUNPOD_MAX_LIFETIME_S is the end")
        self._ages.keep({session.pod.name for session in living if session.pod is not None})
        if not self._budget.is_bounded or not living:
            return
        bills = await self._bills()
        for session in living:
            spent_usd, by_user_usd = self._sum(bills, session.user)
            over = self._budget.exhausted(spent_usd=spent_usd, spent_by_user_usd=by_user_usd)
            nearly = self._budget.nearly(spent_usd=spent_usd, spent_by_user_usd=by_user_usd)
            if over is not None:
                self._tell(
                    Alarm(
                        AlarmKind.SPEND, session.user.key, f"{session.user.key}: {over}; the pod is drained"
                    )
                )
                self._end(session, over)
            elif nearly is not None:
                self._warn(session.user, nearly)

    async def _spent(self, user: UserId) -> tuple[float, float]:
        return self._sum(await self._bills(), user)

    async def _bills(self) -> Sequence[Bill]:
        return await self._store.bills(since=day_of(self._clock.now()))

    def _sum(self, bills: Sequence[Bill], user: UserId) -> tuple[float, float]:
        now = self._clock.now()
        spent = spent_by_user(bills, since=day_of(now), until=now)
        return sum(spent.values()), spent.get(user.key, 0.0)

    def _end(self, session: Session, cause: str) -> None:
        # Looked up again: the session may have moved while the costs were read.
        now = self._sessions.get(session.user)
        if (
            now.state in BOUND
            and now.pod is not None
            and session.pod is not None
            and now.pod.name == session.pod.name
        ):
            self._signals.send(session.user, Event.STOPPED, cause)

    def _warn(self, user: UserId, text: str) -> None:
        today = day_of(self._clock.now())
        self._warned = {warned for warned in self._warned if warned[0] == today}
        if (today, user.key) not in self._warned:
            self._warned.add((today, user.key))
            self._tell(Alarm(AlarmKind.SPEND, user.key, f"{user.key}: {text}", is_warning=True))
