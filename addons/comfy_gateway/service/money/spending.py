"""Keeps what pods cost within the budgets of the day, and each pod within its longest life.

A pod whose budget is spent is drained like an idle one: what runs there may end, and its user goes on working on duty.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.life.ending_reasons import Why, winner
from comfy_gateway.core.life.session import Event, Session, State
from comfy_gateway.core.money.alarms import Alarm, AlarmKind
from comfy_gateway.core.money.budget import Bound, Budget
from comfy_gateway.core.money.costs import Bill, day_of, spent_by_user
from comfy_gateway.core.money.hours import Hours
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, SessionStore
from comfy_gateway.service.life.ages import Ages
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.signals import Signals

logger = logging.getLogger(__name__)

NO_HOURS: Final = Hours()
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
        hours: Hours = NO_HOURS,
        tell: Callable[[Alarm], None],
    ) -> None:
        self._tell = tell
        self._hours = hours
        self._budget = budget
        self._store = store
        self._sessions = sessions
        self._signals = signals
        self._clock = clock
        self._reserve_s = reserve_s
        self._ages = Ages(clock)
        self._warned: set[tuple[datetime, str]] = set()

    async def why_not(
        self, user: UserId, price_usd: float, ordered_usd: Mapping[UserId, float]
    ) -> str | None:
        """Why this user may not have a pod at that price per hour today, or None.

        ``ordered_usd`` has the prices per hour of pods that are being ordered; it is read after the last await, so that
        whoever reserves at once on the return cannot be overtaken by another order.
        """
        if not self._budget.is_bounded:
            return None
        try:
            bills = await self._bills()
        except StoreError as error:
            return f"what was spent today is not known: {error}"
        spent_usd, committed_usd = self._spent(bills), self._committed(ordered_usd, but=user)
        reserve_usd = price_usd * self._reserve_s / 3600
        refusals = (
            bound.refusal(spent_usd, committed_usd, reserve_usd) for bound in self._budget.bounds(user.key)
        )
        return next((refusal for refusal in refusals if refusal is not None), None)

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
        """End what has lived or cost too much, and what runs out of hours.

        Raises StoreError when the costs cannot be read.
        """
        living = [session for session in self._sessions if session.state in BOUND and session.pod is not None]
        self._ages.keep({session.pod.name for session in self._sessions.counted() if session.pod is not None})
        closed = self._hours.why_not(self._clock.now())
        texts = {session.user: self._over_time(session, closed) for session in living}
        try:
            if self._budget.is_bounded and living:
                spent_usd, told = self._spent(await self._bills()), set[str]()
                for session in living:
                    texts[session.user] |= self._over_budget(session.user, spent_usd, told)
        finally:
            # Lifetimes and hours are kept whether or not the costs can be read.
            for session in living:
                if (found := winner(texts[session.user])) is not None:
                    self._end(session, found[1])

    def _over_time(self, session: Session, closed: str | None) -> dict[Why, str]:
        assert session.pod is not None
        texts = {} if closed is None else {Why.HOURS: closed}
        age_s, most_s = self._ages.age_s(session.pod), self._budget.max_lifetime_s
        if 0 < most_s <= age_s:
            texts[Why.LIFETIME] = f"it has lived for {age_s:.0f} s and RUNPOD_MAX_LIFETIME_S is the end"
        return texts

    def _over_budget(self, user: UserId, spent_usd: Mapping[str, float], told: set[str]) -> dict[Why, str]:
        """``told``: whose budgets somebody has heard of at this look."""
        texts: dict[Why, str] = {}
        for bound in self._budget.bounds(user.key):
            if (over := bound.exhausted(spent_usd)) is not None:
                texts.setdefault(bound.why, over)
                if bound.subject not in told:
                    told.add(bound.subject)
                    text = f"{bound.subject}: {over}; pods paid from it are drained"
                    self._tell(Alarm(AlarmKind.SPEND, bound.subject, text))
            elif (nearly := bound.nearly(spent_usd)) is not None:
                self._warn(bound, nearly)
        return texts

    async def _bills(self) -> Sequence[Bill]:
        return await self._store.bills(since=day_of(self._clock.now()))

    def _spent(self, bills: Sequence[Bill]) -> Mapping[str, float]:
        now = self._clock.now()
        return spent_by_user(bills, since=day_of(now), until=now)

    def _committed(self, ordered_usd: Mapping[UserId, float], *, but: UserId) -> Mapping[str, float]:
        """What the pods of others will still cost if nobody uses them, by key of a user."""
        committed_usd: dict[str, float] = {}
        for session in self._sessions.counted(but=but):
            pod = session.pod
            price_usd = None if pod is None else pod.cost_per_hour_usd
            if price_usd is None:
                price_usd = ordered_usd.get(session.user, 0.0)
            left_s = self._reserve_s - (0.0 if pod is None else self._ages.age_s(pod))
            committed_usd[session.user.key] = price_usd * max(left_s, 0.0) / 3600
        return committed_usd

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

    def _warn(self, bound: Bound, text: str) -> None:
        today = day_of(self._clock.now())
        self._warned = {warned for warned in self._warned if warned[0] == today}
        if (today, bound.subject) not in self._warned:
            self._warned.add((today, bound.subject))
            self._tell(Alarm(AlarmKind.SPEND, bound.subject, f"{bound.subject}: {text}", is_warning=True))
