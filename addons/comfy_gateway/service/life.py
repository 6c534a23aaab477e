"""One task for each session that is not SHARED, which lives it from state to state.

``_steps`` says what is done in each state; a step does its work and moves the session by an event. Since a single
task acts for a session, its steps cannot race with each other; what comes from outside comes as a signal.
After a restart the same steps go on from the stored state.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from comfy_gateway.core.errors import AgentUnavailable, StoreError
from comfy_gateway.core.idleness import IdleWindow, PodUse, judge
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.pod_address import PodAddresses
from comfy_gateway.core.ports import Agent, Clock, Prober, SessionStore
from comfy_gateway.core.session import Event, Pod, Session, State
from comfy_gateway.core.telemetry import Sample
from comfy_gateway.core.upstream import Backend, Source
from comfy_gateway.core.users import UserId
from comfy_gateway.service.activity import Activity
from comfy_gateway.service.endings import Endings
from comfy_gateway.service.launch import Launch
from comfy_gateway.service.prompt_book import PromptBook
from comfy_gateway.service.rules import Rules
from comfy_gateway.service.sessions import Sessions
from comfy_gateway.service.signals import Signals
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

RETRY_S = 5.0
AGENT_POLL_S = 1.0


class Life:
    """Drives sessions."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        launch: Launch,
        endings: Endings,
        signals: Signals,
        prober: Prober,
        agent: Agent,
        store: SessionStore,
        book: PromptBook,
        activity: Activity,
        addresses: PodAddresses,
        keys: Keys,
        rules: Rules,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._sessions = sessions
        self._launch = launch
        self._endings = endings
        self._signals = signals
        self._prober = prober
        self._agent = agent
        self._store = store
        self._book = book
        self._activity = activity
        self._addresses = addresses
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._tasks = tasks
        self._failures: Counter[UserId] = Counter()
        self._steps: dict[State, Callable[[Session, Pod], Awaitable[None]]] = {
            State.BOOTING: self._boot,
            State.VERIFYING: self._verify,
            State.READY: self._serve,
            State.DRAINING: self._drain,
            State.TERMINATING: self._terminate,
            State.ABANDONING: self._terminate,
            State.CHECKING: self._check,
        }

    def begin(self, user: UserId) -> None:
        """Start the task of a session that has just left SHARED or was loaded from the store."""
        self._tasks.start(self._live(user), name=f"session of {user.key}")

    async def _live(self, user: UserId) -> None:
        while (session := self._sessions.get(user)).state is not State.SHARED:
            try:
                await self._step(session)
                await self._save(user)
            except Exception:
                # The loop's own edge: a session must not stop being driven, for a pod may be costing money.
                logger.exception(
                    "RunPod session %s: step of state %s failed",
                    user.key,
                    session.state,
                )
                await self._clock.sleep(RETRY_S)

    async def _step(self, session: Session) -> None:
        if session.state is State.REQUESTED:
            await self._launch.order(session)
        elif session.state is State.CREATING:
            await self._launch.create(session)
        elif session.state is State.COOLING:
            await self._cool(session)
        else:
            assert session.pod is not None
            await self._steps[session.state](session, session.pod)

    async def _save(self, user: UserId) -> None:
        while True:
            try:
                await self._sessions.save(user)
            except StoreError as error:
                logger.warning("RunPod session %s: not saved yet: %s", user.key, error)
                await self._clock.sleep(RETRY_S)
            else:
                return

    def _obey(self, user: UserId) -> bool:
        """Apply a waiting signal; True when the session has moved."""
        signal = self._signals.take(user)
        if signal is None:
            return False
        self._sessions.apply(user, signal.event, signal.cause)
        return True

    async def _boot(self, session: Session, pod: Pod) -> None:
        while True:
            if self._obey(session.user):
                return
            health = await self._prober.probe(
                self.backend(pod).upstream, token=self._keys.pod_token(pod.name)
            )
            if health.is_healthy:
                self._sessions.apply(session.user, Event.HEALTHY, "ComfyUI answers")
                return
            elapsed_s = (self._clock.now() - pod.ordered_at).total_seconds()
            if elapsed_s >= self._rules.startup_timeout_s:
                self._sessions.apply(
                    session.user,
                    Event.FAILED,
                    f"not ready {elapsed_s:.0f} s after the order: {health.reason}",
                )
                return
            await self._signals.pause(session.user, self._rules.startup_poll_s)

    async def _verify(self, session: Session, pod: Pod) -> None:
        deadline_s = self._clock.monotonic() + self._rules.agent_wait_s
        while not self._obey(session.user):
            sample, reason = await self._sample(pod)
            if sample is not None:
                self._sessions.apply(session.user, Event.AGENT_ANSWERED, "ComfyUI and the agent answer")
                self._failures.pop(session.user, None)
                return
            if self._clock.monotonic() >= deadline_s:
                self._sessions.apply(
                    session.user,
                    Event.AGENT_ABSENT,
                    f"used without telemetry, for the agent does not answer ({reason})",
                )
                logger.warning(
                    "RunPod session %s: no agent in pod %s: %s",
                    session.user.key,
                    pod.name,
                    reason,
                )
                self._failures.pop(session.user, None)
                return
            await self._signals.pause(session.user, min(AGENT_POLL_S, self._rules.startup_poll_s))

    async def _serve(self, session: Session, pod: Pod) -> None:
        window = IdleWindow(self._rules.idle)
        ready_since_s = self._clock.monotonic()
        self._activity.touch(pod.name)
        while not self._obey(session.user):
            sample, _reason = await self._sample(pod)
            now_s = self._clock.monotonic()
            window.observe(sample, now_s)
            verdict = judge(
                window,
                self._use(session.user, pod, ready_since_s, None),
                self._rules.idle,
                now_s,
            )
            if verdict.is_over:
                # Ask ComfyUI itself, then judge again with what has come in meanwhile.
                health = await self._prober.probe(
                    self.backend(pod).upstream, token=self._keys.pod_token(pod.name)
                )
                use = self._use(session.user, pod, ready_since_s, health.queue_remaining)
                verdict = judge(window, use, self._rules.idle, now_s)
                if verdict.is_over and not self._obey(session.user):
                    self._sessions.apply(session.user, Event.IDLE, verdict.reason)
                    return
            await self._signals.pause(session.user, self._rules.telemetry_poll_s)

    def _use(self, user: UserId, pod: Pod, ready_since_s: float, queue_remaining: int | None) -> PodUse:
        last_s = self._activity.last_s(pod.name)
        return PodUse(
            ready_since_s=ready_since_s,
            last_activity_s=ready_since_s if last_s is None else last_s,
            prompts_in_flight=len(self._book.unfinished(user=user, backend_id=pod.name)),
            transfers_in_flight=self._activity.in_flight(pod.name),
            queue_remaining=queue_remaining,
        )

    async def _drain(self, session: Session, pod: Pod) -> None:
        deadline_s = self._clock.monotonic() + self._rules.drain_timeout_s
        while not self._obey(session.user):
            prompts = len(self._book.unfinished(user=session.user, backend_id=pod.name))
            transfers = self._activity.in_flight(pod.name)
            if not prompts and not transfers:
                self._sessions.apply(session.user, Event.DRAINED, "nothing runs there any more")
                return
            if self._clock.monotonic() >= deadline_s:
                cause = f"{prompts} prompts and {transfers} transfers did not end in time"
                self._sessions.apply(session.user, Event.DRAINED, cause)
                return
            await self._signals.pause(session.user, 1.0)

    async def _terminate(self, session: Session, pod: Pod) -> None:
        if pod.pod_id is not None:
            await self._endings.end(pod.pod_id, pod.name)
        if session.state is State.ABANDONING:
            self._failures[session.user] += 1
        # The row of the pod is closed before the session lets go of the name.
        await self._store.record_pod_end(
            session.user, pod.name, cause=str(session.state), at=self._clock.now()
        )
        self._signals.take(session.user)
        self._activity.forget(pod.name)
        self._sessions.apply(session.user, Event.ENDED, "the cloud confirms that the pod is gone")

    async def _cool(self, session: Session) -> None:
        failures = max(self._failures[session.user], 1)
        wait_s = min(
            self._rules.failure_backoff_s * 2 ** min(failures - 1, 10),
            self._rules.most_backoff_s,
        )
        await self._clock.sleep(wait_s)
        self._sessions.apply(session.user, Event.COOLED, f"waited {wait_s:.0f} s")

    async def _check(self, session: Session, pod: Pod) -> None:
        """After a restart: is the pod that the store remembers still of use?"""
        deadline_s = self._clock.monotonic() + self._rules.startup_timeout_s
        while not self._obey(session.user):
            health = await self._prober.probe(
                self.backend(pod).upstream, token=self._keys.pod_token(pod.name)
            )
            if health.is_healthy:
                self._sessions.apply(
                    session.user,
                    Event.VERIFIED,
                    "found alive after a restart of the gateway",
                )
                return
            if self._clock.monotonic() >= deadline_s:
                self._sessions.apply(
                    session.user,
                    Event.FAILED,
                    f"not healthy after a restart: {health.reason}",
                )
                return
            await self._signals.pause(session.user, self._rules.startup_poll_s)

    async def _sample(self, pod: Pod) -> tuple[Sample | None, str]:
        assert pod.pod_id is not None
        try:
            url = self._addresses.agent_url(pod.pod_id)
            return await self._agent.sample(url, token=self._keys.agent_token(pod.name)), ""
        except AgentUnavailable as error:
            return None, str(error)

    def backend(self, pod: Pod) -> Backend:
        """The pod as a backend. The pod must have an id."""
        return backend_of(pod, self._addresses, self._keys)


def backend_of(pod: Pod, addresses: PodAddresses, keys: Keys) -> Backend:
    """A pod that has an id, as a backend whose id is the pod's name."""
    assert pod.pod_id is not None
    return Backend(
        pod.name,
        Source.PRIVATE,
        addresses.upstream(pod.pod_id),
        keys.pod_token(pod.name),
    )
