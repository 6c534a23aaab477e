"""One task for each session that is not SHARED, which lives it from state to state.

``_steps`` says what is done in each state; a step does its work and moves the session by an event. Since a single
task acts for a session, its steps cannot race with each other; what comes from outside comes as a signal.
After a restart the same steps go on from the stored state.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from comfy_gateway.core.errors import AgentUnavailable, StoreError
from comfy_gateway.core.files.files import pod_alias
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.boot import BootWatch
from comfy_gateway.core.life.idleness import IdleWindow, PodUse, ends_in_s, judge
from comfy_gateway.core.life.image_version import is_older
from comfy_gateway.core.life.session import Event, Pod, Session, State
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.money.alarms import Alarm, AlarmKind
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.pods.front_door import OPEN_CAUSE, DoorState, judge_knock
from comfy_gateway.core.pods.pod_address import PodAddresses
from comfy_gateway.core.ports import Agent, Clock, CloudPod, Prober, SessionStore
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.life.ages import Ages
from comfy_gateway.service.life.endings import Endings
from comfy_gateway.service.life.keeping import Keeping
from comfy_gateway.service.life.launch import Launch
from comfy_gateway.service.life.pod_logs import PodLogs
from comfy_gateway.service.life.readings import Readings
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.signals import Signals
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.prompts.placement import Placement
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

RETRY_S = 5.0
MOST_STEP_FAILURES = 10
"""Failures of one step in a row after which the pod is given up: a step that cannot be done watches nothing."""
STEADY_S = 60.0
"""A step that went so long before it failed begins a new row."""
GIVING_UP: Final[dict[State, Event]] = {
    State.BOOTING: Event.FAILED,
    State.VERIFYING: Event.FAILED,
    State.CHECKING: Event.FAILED,
    State.READY: Event.STOPPED,
    State.DRAINING: Event.DRAINED,
}
AGENT_POLL_S = 0.5
GONE_S = 3.0
"""A pod that is to go at once and has not answered for so long keeps its files."""
QUICK_LOOKS = 3
"""Looks without a word of ComfyUI, shortly one after the other, after which the cloud is asked for the pod."""
LOOK_AGAIN_S = 1.5
MUTE_LOOKS = 2
"""Further polls without a word, of a pod that the cloud says runs, until the route goes back to duty."""


class Vault(Protocol):
    """Keeps the files of pods."""

    def in_flight(self, pod_name: str) -> int:
        """Files that are being copied, as far as the pod should be held for them."""
        ...

    async def complete(self, pod_name: str, deadline_s: float, *, patience_s: float | None = None) -> object:
        """Return when all of the pod's files are safe, or cannot be saved in time."""
        ...


@dataclass(slots=True)
class Served:
    """A pod that is looked at for idleness."""

    window: IdleWindow
    ready_since_s: float
    reason: str = ""
    """Of the last verdict."""


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
        ledger: Ledger,
        placement: Placement,
        vault: Vault,
        activity: Activity,
        keeping: Keeping,
        readings: Readings,
        logs: PodLogs,
        addresses: PodAddresses,
        keys: Keys,
        rules: Rules,
        clock: Clock,
        tasks: Tasks,
        cloud_view: Callable[[str], CloudPod | None],
        tell: Callable[[Alarm], None],
    ) -> None:
        """``cloud_view``: a pod as the cloud's last list had it."""
        self._cloud_view = cloud_view
        self._tell = tell
        self._sessions = sessions
        self._launch = launch
        self._endings = endings
        self._signals = signals
        self._prober = prober
        self._agent = agent
        self._store = store
        self._ledger = ledger
        self._placement = placement
        self._vault = vault
        self._activity = activity
        self._keeping = keeping
        self._readings = readings
        self._logs = logs
        self._addresses = addresses
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._tasks = tasks
        self._ages = Ages(clock)
        self._failures: Counter[UserId] = Counter()
        self._driven: set[UserId] = set()
        self._served: dict[UserId, Served] = {}
        self._unsaved: set[UserId] = set()
        self._causes: dict[UserId, str] = {}
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
        """Start the task of a session that has just left SHARED or was loaded from the store.

        Where a task still saves the end of the session before, it goes on with this one: two would order twice.
        """
        if user not in self._driven:
            self._driven.add(user)
            self._tasks.start(self._live(user), name=f"session of {user.key}")

    def idle_ends_in_s(self, user: UserId) -> float | None:
        """When the user's pod ends if nothing more is done on it; None while it is busy, or does not serve."""
        served, pod = self._served.get(user), self._sessions.get(user).pod
        if served is None or pod is None:
            return None
        use = self._use(user, pod, served.ready_since_s, None)
        return ends_in_s(served.window, use, self._rules.idle, self._clock.monotonic())

    def last_verdict(self, user: UserId) -> str | None:
        """Why the user's pod is kept or ended, by the last look at it; None while none serves."""
        served = self._served.get(user)
        return None if served is None else served.reason

    def age_s(self, pod: Pod) -> float:
        """Seconds since the pod was ordered."""
        return self._ages.age_s(pod)

    async def _live(self, user: UserId) -> None:
        failures = 0
        # Between the last look at the state and the end of this task nothing awaits, so that no burst is missed.
        try:
            while (session := self._sessions.get(user)).state is not State.SHARED:
                began_s = self._clock.monotonic()
                try:
                    await self._step(session)
                    await self._save(user)
                    failures = 0
                except Exception as error:
                    # The loop's own edge: a session must not stop being driven, for a pod may be costing money.
                    logger.exception("RunPod session %s: step of state %s failed", user.key, session.state)
                    is_new_row = self._clock.monotonic() - began_s >= STEADY_S
                    failures = 1 if is_new_row else failures + 1
                    self._give_up(session, failures, error)
                    await self._clock.sleep(RETRY_S)
        finally:
            self._driven.discard(user)

    def _give_up(self, session: Session, failures: int, error: Exception) -> None:
        """End a pod that cannot be watched: it would cost money for ever."""
        state = self._sessions.get(session.user).state
        if failures >= MOST_STEP_FAILURES and state is session.state and state in GIVING_UP:
            cause = f"given up after {failures} failures of ours: {type(error).__name__}"
            self._move(session.user, GIVING_UP[state], cause)

    async def _step(self, session: Session) -> None:
        if session.state is State.REQUESTED:
            await self._launch.order(session)
        elif session.state is State.CREATING:
            refusal = await self._launch.create(session)
            if refusal is not None:
                assert session.pod is not None
                self._causes[session.user] = f"no pod was made: {refusal}"
                await self._record_end(session.user, session.pod)
                self._causes.pop(session.user, None)
        elif session.state is State.COOLING:
            await self._cool(session)
        else:
            assert session.pod is not None
            await self._steps[session.state](session, session.pod)

    async def _save(self, user: UserId) -> None:
        """Write the session. Where the store does not answer this is done later, for the pod needs to be driven
        meanwhile: what must be written before money is spent, ``Launch`` writes itself.
        """
        if not await self._try_save(user) and user not in self._unsaved:
            self._unsaved.add(user)
            self._tasks.start(self._save_later(user), name=f"saving of {user.key}")

    async def _save_later(self, user: UserId) -> None:
        try:
            await self._clock.sleep(RETRY_S)
            while not await self._try_save(user):
                await self._clock.sleep(RETRY_S)
        finally:
            self._unsaved.discard(user)

    async def _try_save(self, user: UserId) -> bool:
        try:
            await self._sessions.save(user)
        except StoreError as error:
            logger.warning("RunPod session %s: not saved yet: %s", user.key, error)
            return False
        return True

    def _move(self, user: UserId, event: Event, cause: str) -> None:
        """Move the session on the way to its pod's end, and keep the cause for the history of pods."""
        self._sessions.apply(user, event, cause)
        if event is not Event.DRAINED or user not in self._causes:
            self._causes[user] = cause

    def _obey(self, user: UserId) -> bool:
        """Apply a waiting signal; True when the session has moved."""
        signal = self._signals.take(user)
        if signal is None:
            return False
        self._move(user, signal.event, signal.cause)
        return True

    async def _boot(self, session: Session, pod: Pod) -> None:
        watch = BootWatch(self._rules.boot)
        self._ages.age_s(pod)  # from here on, whatever the clock is set to
        while not self._obey(session.user):
            health = await self._prober.probe(
                self.backend(pod).upstream, token=self._keys.pod_token(pod.name)
            )
            reason = health.reason
            if health.is_healthy:
                door = await self._knock(pod)
                if door is DoorState.OPEN and not self._rules.allows_open_pods:
                    logger.error(
                        "RunPod session %s: %s is refused: %s", session.user.key, pod.name, OPEN_CAUSE
                    )
                    if not self._obey(session.user):
                        self._move(session.user, Event.FAILED, OPEN_CAUSE)
                    return
                if door is DoorState.OPEN:
                    logger.warning(
                        "RunPod session %s: %s is used although %s", session.user.key, pod.name, OPEN_CAUSE
                    )
                if door is not DoorState.UNKNOWN or self._rules.allows_open_pods:
                    if not self._obey(session.user):
                        self._sessions.apply(session.user, Event.HEALTHY, "ComfyUI answers")
                    return
                reason = "its front door does not say whether it asks for the token"
            age_s = self._ages.age_s(pod)
            if age_s >= self._rules.startup_timeout_s / 2:
                # The agent is up before ComfyUI where models are fetched first; its progress moves the deadline.
                sample, _reason = await self._sample(pod)
                watch.observe(sample, age_s)
            assert pod.pod_id is not None
            watch.see(self._cloud_view(pod.pod_id), age_s)
            if (overdue := watch.overdue(age_s)) is not None:
                self._move(session.user, Event.FAILED, f"{overdue}: {reason}")
                return
            await self._signals.pause(session.user, self._rules.startup_poll_s)

    async def _knock(self, pod: Pod) -> DoorState:
        """At the pod's front door, without the token."""
        return judge_knock(await self._prober.probe(self.backend(pod).upstream))

    async def _verify(self, session: Session, pod: Pod) -> None:
        deadline_s = self._clock.monotonic() + self._rules.agent_wait_s
        watch = BootWatch(self._rules.boot)
        while not self._obey(session.user):
            sample, reason = await self._sample(pod)
            watch.observe(sample, self._ages.age_s(pod))
            if sample is not None and self._rules.waits_for_models and watch.is_syncing:
                if (overdue := watch.overdue(self._ages.age_s(pod))) is not None:
                    self._move(session.user, Event.FAILED, f"{overdue}: models are still being fetched")
                    return
            elif sample is not None:
                if (old := await self._old_image(pod)) is not None:
                    # Ending it would only buy the same image again.
                    logger.warning("RunPod session %s: %s; it is used all the same", session.user.key, old)
                await self._open(session, pod, Event.AGENT_ANSWERED, "ComfyUI and the agent answer")
                return
            elif self._clock.monotonic() >= deadline_s:
                logger.warning(
                    "RunPod session %s: no agent in pod %s: %s", session.user.key, pod.name, reason
                )
                cause = f"used without telemetry, for the agent does not answer ({reason})"
                await self._open(session, pod, Event.AGENT_ABSENT, cause)
                return
            await self._signals.pause(session.user, min(AGENT_POLL_S, self._rules.startup_poll_s))

    async def _open(self, session: Session, pod: Pod, event: Event, cause: str) -> None:
        """Let the user's prompts go to the pod, once it is known which of them it can run."""
        await self._placement.meet(session.user, self.backend(pod))
        if not self._obey(session.user):
            self._sessions.apply(session.user, event, cause)
            self._failures.pop(session.user, None)

    async def _serve(self, session: Session, pod: Pod) -> None:
        served = Served(IdleWindow(self._rules.idle), self._clock.monotonic())
        self._served[session.user] = served
        try:
            await self._watch_idleness(session, pod, served)
        finally:
            del self._served[session.user]

    async def _watch_idleness(self, session: Session, pod: Pod, served: Served) -> None:
        window, ready_since_s = served.window, served.ready_since_s
        self._activity.touch(pod.name)
        mute = 0
        while not self._obey(session.user):
            sample, _reason = await self._sample(pod)
            self._readings.note(pod.name, sample)
            if sample is not None:
                await self._logs.note(pod)  # a pod that vanishes is asked nothing any more
            mute = 0 if await self._answers(pod, sample) else mute + 1
            if mute == QUICK_LOOKS and (gone := await self._why_gone(pod)) is not None:
                self._move(session.user, Event.VANISHED, gone)
                return
            if mute >= QUICK_LOOKS + MUTE_LOOKS:
                # Its user gets nothing but errors there, and on duty works on.
                cause = f"ComfyUI in the pod did not answer {mute} times in a row"
                self._move(session.user, Event.VANISHED, cause)
                return
            now_s = self._clock.monotonic()
            window.observe(sample, now_s)
            verdict = judge(
                window,
                self._use(session.user, pod, ready_since_s, None),
                self._rules.idle,
                now_s,
            )
            served.reason = verdict.reason
            if verdict.is_over:
                # Ask ComfyUI itself, then judge again with what has come in meanwhile.
                queue_remaining = await self._queue_remaining(pod)
                use = self._use(session.user, pod, ready_since_s, queue_remaining)
                verdict = judge(window, use, self._rules.idle, now_s)
                served.reason = verdict.reason
                if self._obey(session.user):
                    return
                if verdict.is_over:
                    if verdict.is_silence:
                        text = f"pod {pod.name} of {session.user.key} is ended: {verdict.reason}"
                        self._tell(Alarm(AlarmKind.SILENCE, pod.name, text))
                    self._move(session.user, Event.IDLE, verdict.reason)
                    return
            is_suspect = 0 < mute < QUICK_LOOKS
            pause_s = (
                min(LOOK_AGAIN_S, self._rules.telemetry_poll_s)
                if is_suspect
                else self._rules.telemetry_poll_s
            )
            # A pod that is under suspicion is looked at in its own time: whoever nudges must not shorten its patience.
            nudge_after_s = pause_s if mute else LOOK_AGAIN_S
            await self._signals.pause(session.user, pause_s, nudge_after_s=nudge_after_s)

    async def _why_gone(self, pod: Pod) -> str | None:
        assert pod.pod_id is not None
        return await self._endings.why_gone(pod.pod_id)

    async def _answers(self, pod: Pod, sample: Sample | None) -> bool:
        """Whether ComfyUI in the pod is alive, by the agent's word or else by a probe of our own."""
        if sample is not None and sample.is_queue_empty is not None:
            return True
        health = await self._prober.probe(self.backend(pod).upstream, token=self._keys.pod_token(pod.name))
        return health.is_healthy

    def _use(self, user: UserId, pod: Pod, ready_since_s: float, queue_remaining: int | None) -> PodUse:
        last_s = self._activity.last_s(pod.name)
        return PodUse(
            ready_since_s=ready_since_s,
            last_activity_s=ready_since_s if last_s is None else last_s,
            prompts_in_flight=len(self._ledger.unfinished(user=user, backend_id=pod.name)),
            transfers_in_flight=self._activity.in_flight(pod.name),
            queue_remaining=queue_remaining,
            copies_in_flight=self._vault.in_flight(pod.name),
            kept_for_s=self._keeping.left_s(pod.name),
            lease_left_s=max(self._rules.min_lease_s - self._ages.age_s(pod), 0.0),
        )

    async def _drain(self, session: Session, pod: Pod) -> None:
        """What runs there may end; then its files are made safe, which is all that the pod is still good for."""
        cause = await self._quieten(session, pod)
        if cause is not None and await self._make_safe(session.user, pod):
            self._move(session.user, Event.DRAINED, cause)

    async def _quieten(self, session: Session, pod: Pod) -> str | None:
        """Why the wait is over, in words for the log, or None when the session has moved."""
        deadline_s = self._clock.monotonic() + self._rules.drain_timeout_s
        while not self._obey(session.user):
            prompts = len(self._ledger.unfinished(user=session.user, backend_id=pod.name))
            transfers = self._activity.in_flight(pod.name)
            if not prompts and not transfers and not await self._queue_remaining(pod):
                return "nothing runs there any more"
            if self._clock.monotonic() >= deadline_s:
                return f"{prompts} prompts and {transfers} transfers did not end in time"
            await self._signals.pause(session.user, 1.0)
        return None

    async def _make_safe(self, user: UserId, pod: Pod) -> bool:
        """Whether the wait for the vault is over and the session has not moved meanwhile."""
        waiting = self._tasks.start(self._complete(pod, None), name=f"vault of {pod.name}")
        try:
            while not waiting.done():
                if self._obey(user):
                    return False
                await self._signals.pause(user, 1.0)
        finally:
            waiting.cancel()
        return not self._obey(user)

    async def _complete(self, pod: Pod, patience_s: float | None) -> None:
        try:
            await self._vault.complete(pod.name, self._rules.vault_deadline_s, patience_s=patience_s)
        except Exception:
            # The edge of the vault: a fault of it must not keep a pod that costs money.
            logger.exception("RunPod session: the files of %s may not be safe", pod.name)

    async def _queue_remaining(self, pod: Pod) -> int | None:
        """What ComfyUI in the pod says itself; after a restart of the gateway nobody else knows."""
        health = await self._prober.probe(self.backend(pod).upstream, token=self._keys.pod_token(pod.name))
        return health.queue_remaining

    async def _terminate(self, session: Session, pod: Pod) -> None:
        assert pod.pod_id is not None
        await self._logs.note(pod)
        if session.state is not State.ABANDONING:  # that one never served, and has made nothing
            # Also without a drain before: ComfyUI may have died, and the agent still hands its files out.
            await self._complete(pod, GONE_S)
        found = await self._endings.end(pod.pod_id, pod.name)
        # The row of the pod is closed before the session lets go of the name.
        await self._record_end(session.user, pod)
        if session.state is State.ABANDONING:
            self._failures[session.user] += 1
        self._causes.pop(session.user, None)
        self._signals.take(session.user)
        self._activity.forget(pod.name)
        self._keeping.forget(pod.name)
        self._readings.forget(pod.name)
        self._ages.forget(pod.name)
        self._sessions.apply(session.user, Event.ENDED, found)

    async def _record_end(self, user: UserId, pod: Pod) -> None:
        cause = self._causes.get(user, "the gateway restarted while it was being ended")
        ended_at = self._clock.now()
        while True:
            try:
                await self._store.record_pod_end(user, pod.name, cause=cause, at=ended_at)
            except StoreError as error:
                logger.warning("RunPod session %s: the end is not recorded yet: %s", user.key, error)
                await self._clock.sleep(RETRY_S)
            else:
                return

    async def _cool(self, session: Session) -> None:
        failures = max(self._failures[session.user], 1)
        wait_s = min(
            self._rules.failure_backoff_s * 2 ** min(failures - 1, 10),
            self._rules.most_backoff_s,
        )
        await self._clock.sleep(wait_s)
        # What was meant for a pod that was never made must not end the next one.
        self._signals.take(session.user)
        self._sessions.apply(session.user, Event.COOLED, f"waited {wait_s:.0f} s")

    async def _check(self, session: Session, pod: Pod) -> None:
        """After a restart: is the pod that the store remembers still of use?

        The cloud is asked first: its proxy may answer for a pod that has ended.
        """
        if (gone := await self._why_gone(pod)) is not None:
            if not self._obey(session.user):
                self._move(session.user, Event.VANISHED, gone)
            return
        deadline_s = self._clock.monotonic() + self._rules.startup_timeout_s
        while not self._obey(session.user):
            health = await self._prober.probe(
                self.backend(pod).upstream, token=self._keys.pod_token(pod.name)
            )
            if health.is_healthy:
                await self._open(session, pod, Event.VERIFIED, "found alive after a restart of the gateway")
                if (old := await self._old_image(pod)) is not None:
                    self._signals.send(session.user, Event.STOPPED, old)
                return
            if self._clock.monotonic() >= deadline_s:
                self._move(
                    session.user,
                    Event.FAILED,
                    f"not healthy after a restart: {health.reason}",
                )
                return
            await self._signals.pause(session.user, self._rules.startup_poll_s)

    async def _old_image(self, pod: Pod) -> str | None:
        """Why this pod's image is too old, in words for the log, or None."""
        if self._rules.min_agent is None or pod.pod_id is None:
            return None
        url = self._addresses.agent_url(pod.pod_id)
        version = await self._agent.version(url, token=self._keys.agent_token(pod.name))
        if not is_older(version, self._rules.min_agent):
            return None
        return f"the image of {pod.name} has agent {version}, and POD_MIN_AGENT is {self._rules.min_agent}"

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
        alias=pod_alias(pod.name),
    )
