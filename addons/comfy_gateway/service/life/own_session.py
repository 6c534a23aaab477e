"""A user's own session: what they are told of it, and what they may do with it. It looks at nobody else's."""

from dataclasses import dataclass

from comfy_gateway.core.life import own_pod
from comfy_gateway.core.life.eta import Eta
from comfy_gateway.core.life.own_pod import Can, Policy
from comfy_gateway.core.life.session import STARTING, Event, Pod, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.core.results.queue_merge import OrderOf, ahead_of
from comfy_gateway.service.life.boot_times import BootTimes
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.life.keeping import Keeping
from comfy_gateway.service.life.life import Life
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.signals import Signals
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.routes import Routes


@dataclass(frozen=True, slots=True)
class Own:
    """One user's session at one moment."""

    state: State
    source: Source
    """Where new prompts go."""
    gpu: str | None
    """The cloud's name of the pod's GPU type; None without a pod, or while the cloud has not said."""
    prompts_in_window: int
    threshold: int | None
    """So many prompts within the window earn a pod; None where no pods are bought."""
    ahead: int | None
    """Prompts that run before this user's next one on the shared server; None where none of theirs waits there."""
    eta: Eta | None
    """Seconds until a pod that starts is ready; None where none starts or too little is known."""
    idle_ends_in_s: float | None
    """Until an idle pod ends if nothing more is done; None while it is busy."""
    can: Can
    profiles: tuple[str, ...] = ()
    """Ways to buy that this user may name when asking for a pod; empty where that is not allowed."""


class OwnSession:
    """Asks memory alone."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        bursts: Bursts,
        life: Life,
        signals: Signals,
        keeping: Keeping,
        boot_times: BootTimes,
        ledger: Ledger,
        routes: Routes,
        rules: Rules,
        policy: Policy,
        order_of: OrderOf,
    ) -> None:
        self._sessions = sessions
        self._bursts = bursts
        self._life = life
        self._signals = signals
        self._keeping = keeping
        self._boot_times = boot_times
        self._ledger = ledger
        self._routes = routes
        self._rules = rules
        self._policy = policy
        self._order_of = order_of

    def of(self, user: UserId) -> Own:
        """At this moment."""
        session = self._sessions.get(user)
        pod = session.pod
        ahead = None
        if not session.is_routed:
            unfinished = self._ledger.unfinished(backend_id=self._routes.duty(user).id)
            ahead = ahead_of(user.key, unfinished, self._order_of)
        return Own(
            session.state,
            source=Source.PRIVATE if session.is_routed else Source.DUTY,
            gpu=None if pod is None else pod.gpu_type,
            prompts_in_window=self._bursts.counted(user),
            threshold=self._rules.threshold_count if self._rules.is_provisioning else None,
            ahead=ahead,
            eta=self._eta(session, pod),
            idle_ends_in_s=self._life.idle_ends_in_s(user),
            can=Can(
                promote=self._refuse_promote(session) is None,
                keep=self._refuse_keep(session, pod) is None,
                give_back=own_pod.refuse_give_back(session.state) is None,
            ),
            profiles=tuple(self._rules.buying.offered(user)) if self._policy.may_promote else (),
        )

    def promote(self, user: UserId, profile: str | None = None) -> Refusal | None:
        """Ask for a pod as a burst would, by a profile if one is named. Returns why there is none, or None."""
        refusal = self._refuse_promote(self._sessions.get(user))
        if refusal is None and profile is not None and profile not in self._rules.buying.offered(user):
            return own_pod.NO_PROFILE
        if refusal is None and self._bursts.ask(user, "asked for by its user", wish=profile) is not None:
            return own_pod.NONE_FREE
        return refusal

    def keep(self, user: UserId) -> Refusal | None:
        """Leave an idle pod for half an hour from now. Returns why not, or None."""
        session = self._sessions.get(user)
        pod = session.pod
        refusal = self._refuse_keep(session, pod)
        if refusal is None and pod is not None:
            left_s, age_s = self._keeping.left_s(pod.name), self._life.age_s(pod)
            self._keeping.keep(pod.name, own_pod.kept_for_s(self._policy, left_s=left_s, age_s=age_s))
        return refusal

    def give_back(self, user: UserId) -> Refusal | None:
        """End the pod; one that serves is drained first. Returns why not, or None."""
        refusal = own_pod.refuse_give_back(self._sessions.get(user).state)
        if refusal is None:
            self._signals.send(user, Event.STOPPED, "given back by its user")
        return refusal

    def _refuse_promote(self, session: Session) -> Refusal | None:
        return own_pod.refuse_promote(session.state, self._policy, has_pods=self._rules.is_provisioning)

    def _refuse_keep(self, session: Session, pod: Pod | None) -> Refusal | None:
        if pod is None:
            return own_pod.NOT_READY
        return own_pod.refuse_keep(
            session.state, self._policy, kept=self._keeping.times(pod.name), age_s=self._life.age_s(pod)
        )

    def _eta(self, session: Session, pod: Pod | None) -> Eta | None:
        if session.state not in STARTING:
            return None
        if pod is None:
            return self._boot_times.eta(None, 0.0)
        return self._boot_times.eta(pod.gpu_type, self._life.age_s(pod))
