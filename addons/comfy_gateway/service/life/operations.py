"""All sessions, as operators see them, and what operators do with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from comfy_gateway.core.errors import AgentUnavailable
from comfy_gateway.core.life import own_pod
from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.core.life.session import Event, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.life.event_log import EventLog
from comfy_gateway.service.life.keeping import Keeping
from comfy_gateway.service.life.life import Life
from comfy_gateway.service.life.pod_logs import PodLogs
from comfy_gateway.service.life.readings import Reading, Readings
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.signals import Signals
from comfy_gateway.service.prompts.ledger import Ledger

NO_LOG: Final = Refusal(
    409, "no_log", "There is no pod whose log could be read.", "It has none, or it has not started yet."
)
NO_KEPT_LOG: Final = Refusal(
    404, "no_log", "No log of such a pod is kept.", "Names of pods are those of /events and of the costs."
)
ANYBODYS: Final = Policy(may_promote=True)
"""Operators may promote whatever the users' own policy is."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session at one moment. Times are UTC."""

    user: UserId
    state: State
    since: datetime | None
    """None for SHARED."""
    source: Source
    """Where new prompts go."""
    pod: str | None
    pod_id: str | None
    gpu: str | None
    cost_per_hour_usd: float | None
    ordered_at: datetime | None
    cause: str | None
    """Of the last transition; None where the gateway has seen none."""
    verdict: str | None
    """Why the pod is kept, or why it ends, by the last look at it."""
    prompts: int
    """Unfinished ones, on whatever server."""
    utilization_percent: float | None
    queue: int | None
    read_at: datetime | None
    """When the agent told these two."""
    idle_ends_at: datetime | None
    """To the second; None while the pod is busy or does not serve."""
    times_kept: int


class Operations:
    """Knows nothing by itself: it asks those who do."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        bursts: Bursts,
        life: Life,
        signals: Signals,
        keeping: Keeping,
        readings: Readings,
        log: EventLog,
        ledger: Ledger,
        rules: Rules,
        pod_logs: PodLogs,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._bursts = bursts
        self._life = life
        self._signals = signals
        self._keeping = keeping
        self._readings = readings
        self._log = log
        self._ledger = ledger
        self._rules = rules
        self._pod_logs = pod_logs
        self._clock = clock
        self._terminating: dict[UserId, tuple[str, str]] = {}
        """Pods that are not to be drained, by their users, with the cause."""
        sessions.watch(self._moved)

    def all(self) -> list[SessionView]:
        """Sessions that are not plainly SHARED, and users who have unfinished prompts, by user."""
        prompts = Counter(record.user_key for record in self._ledger.unfinished())
        found = {session.user: session for session in self._sessions}
        for key in prompts:
            if key is not None and (user := UserId.from_key(key)) not in found:
                found[user] = self._sessions.get(user)
        return [
            self._view(session, prompts[session.user.key])
            for session in sorted(found.values(), key=lambda one: one.user.key)
        ]

    def one(self, user: UserId) -> SessionView:
        """Anybody's, also of a user who was never seen."""
        return self._view(self._sessions.get(user), len(self._ledger.unfinished(user=user)))

    def readings(self, user: UserId) -> Sequence[Reading]:
        """Of the user's pod, during the last hour."""
        pod = self._sessions.get(user).pod
        return () if pod is None else self._readings.of(pod.name)

    def promote(self, user: UserId, by: str) -> Refusal | None:
        """Ask for a pod. Returns why there is none, or None."""
        session = self._sessions.get(user)
        refusal = own_pod.refuse_promote(session.state, ANYBODYS, has_pods=self._rules.is_provisioning)
        if refusal is None and (why_not := self._bursts.ask(user, f"promoted by {by}")) is not None:
            return replace(own_pod.NONE_FREE, details=why_not)
        return refusal

    def drain(self, user: UserId, by: str) -> Refusal | None:
        """End the pod when what runs there has ended. Returns why not, or None."""
        refusal = own_pod.refuse_give_back(self._sessions.get(user).state)
        if refusal is None:
            self._signals.send(user, Event.STOPPED, f"drained by {by}")
        return refusal

    def terminate(self, user: UserId, by: str) -> Refusal | None:
        """End the pod, without waiting for what runs there: that is rescued. Returns why not, or None."""
        session = self._sessions.get(user)
        if session.state is not State.DRAINING and own_pod.refuse_give_back(session.state) is not None:
            return own_pod.NOT_READY
        cause = f"terminated by {by}"
        if session.state is not State.DRAINING and session.pod is not None:
            # The table leads a pod that serves to its end by DRAINING; there it is told a second time.
            self._terminating[user] = (session.pod.name, cause)
        self._signals.send(user, Event.STOPPED, cause)
        return None

    def extend(self, user: UserId, minutes: int) -> Refusal | None:
        """Leave an idle pod for so long from now, or as long as it is left anyway. Returns why not, or None."""
        session = self._sessions.get(user)
        if (pod := session.pod) is None:
            return own_pod.NOT_READY
        policy = replace(ANYBODYS, max_lifetime_s=self._rules.budget.max_lifetime_s)
        age_s, left_s = self._life.age_s(pod), self._keeping.left_s(pod.name)
        # How often its user has kept it does not matter to an operator.
        refusal = own_pod.refuse_keep(session.state, policy, kept=0, age_s=age_s)
        if refusal is None:
            seconds = own_pod.kept_for_s(policy, left_s=left_s, age_s=age_s, wanted_s=minutes * 60.0)
            self._keeping.extend(pod.name, seconds)
        return refusal

    async def log_tail(self, user: UserId, lines: int) -> Sequence[str] | Refusal:
        """The last lines of ComfyUI's log in the user's pod."""
        pod = self._sessions.get(user).pod
        if pod is None or pod.pod_id is None:
            return NO_LOG
        try:
            return await self._pod_logs.tail(pod, lines)
        except AgentUnavailable as error:
            return Refusal(502, "no_log", "The log could not be read.", str(error))

    async def kept_log(self, pod_name: str, lines: int) -> Sequence[str] | Refusal:
        """The last lines that were kept of a pod's log, also when the pod is long gone."""
        found = await self._pod_logs.kept(pod_name, lines)
        return NO_KEPT_LOG if found is None else found

    def _moved(self, _before: Session, after: Session, _event: Event) -> None:
        wanted = self._terminating.get(after.user)
        if wanted is None:
            return
        if after.pod is None or after.pod.name != wanted[0] or after.state is State.TERMINATING:
            del self._terminating[after.user]
        elif after.state is State.DRAINING:
            self._signals.send(after.user, Event.STOPPED, wanted[1])

    def _view(self, session: Session, prompts: int) -> SessionView:
        user, pod = session.user, session.pod
        reading = None if pod is None else self._readings.last(pod.name)
        left_s = self._life.idle_ends_in_s(user)
        ends_at = None if left_s is None else self._clock.now() + timedelta(seconds=left_s + 0.5)
        return SessionView(
            user,
            session.state,
            None if session.state is State.SHARED else session.since,
            source=Source.PRIVATE if session.is_routed else Source.DUTY,
            pod=None if pod is None else pod.name,
            pod_id=None if pod is None else pod.pod_id,
            gpu=None if pod is None else pod.gpu_type,
            cost_per_hour_usd=None if pod is None else pod.cost_per_hour_usd,
            ordered_at=None if pod is None else pod.ordered_at,
            cause=self._log.cause(user),
            verdict=self._life.last_verdict(user),
            prompts=prompts,
            utilization_percent=None if reading is None else reading.utilization_percent,
            queue=None if reading is None else reading.queue,
            read_at=None if reading is None else reading.at,
            idle_ends_at=None if ends_at is None else ends_at.replace(microsecond=0),
            times_kept=0 if pod is None else self._keeping.times(pod.name),
        )
