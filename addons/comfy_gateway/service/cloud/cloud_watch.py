"""One list of all pods per tick, for everybody: what vanished, what it costs, and pods of ours that nobody claims."""

import logging
from collections import Counter
from collections.abc import Callable

from comfy_gateway.core.errors import CloudError, StoreError
from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.money.alarms import Alarm, AlarmKind
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, Cloud, CloudPod
from comfy_gateway.service.cloud.strays import Strays
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.signals import Signals

logger = logging.getLogger(__name__)

SILENT_S = 300.0
"""A cloud that gives no list for so long is told."""
MISSES_UNTIL_GONE = 3
"""The list drops a living pod now and then."""
WATCHED = frozenset({State.BOOTING, State.VERIFYING, State.READY, State.DRAINING, State.CHECKING})


class CloudWatch:
    """Compares the cloud's list with the sessions. A list that fails says nothing at all."""

    def __init__(
        self,
        *,
        cloud: Cloud,
        sessions: Sessions,
        signals: Signals,
        strays: Strays,
        clock: Clock,
        interval_s: float,
        tell: Callable[[Alarm], None],
    ) -> None:
        self._tell = tell
        self._cloud = cloud
        self._sessions = sessions
        self._signals = signals
        self._strays = strays
        self._clock = clock
        self._interval_s = interval_s
        self._misses: Counter[str] = Counter()
        self._silent_since_s: float | None = None
        self._unsaved: set[UserId] = set()
        """Users whose pod's price is not stored yet."""
        self._listed: dict[str, CloudPod] = {}

    def view(self, pod_id: str) -> CloudPod | None:
        """The pod as the last list had it; None where it was not on it, or the last list failed."""
        return self._listed.get(pod_id)

    async def run(self) -> None:
        """Tick at the interval, for ever."""
        while True:
            try:
                await self.tick()
            except Exception:
                logger.exception("RunPod session: the cloud watch failed once")
            await self._clock.sleep(self._interval_s)

    async def tick(self) -> None:
        """Read one list and act on it."""
        try:
            listed = {pod.id: pod for pod in await self._cloud.list_pods()}
        except CloudError as error:
            logger.warning("RunPod session: pods could not be listed: %s", error)
            self._listed = {}
            self._tell_of_silence(str(error))
            return
        self._silent_since_s = None
        self._listed = listed
        for session in self._sessions:
            await self._compare(session.user, listed)
        await self._save()
        await self._strays.judge(listed)

    async def _save(self) -> None:
        """Write new prices down: a session may stay in its state for hours, and budgets count what is stored."""
        for user in tuple(self._unsaved):
            try:
                await self._sessions.save(user)
            except StoreError as error:
                logger.warning(
                    "RunPod session %s: the price of its pod is not saved yet: %s", user.key, error
                )
                return
            self._unsaved.discard(user)

    def _tell_of_silence(self, cause: str) -> None:
        now_s = self._clock.monotonic()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        elif (silent_s := now_s - self._silent_since_s) >= SILENT_S:
            text = f"pods could not be listed for {silent_s:.0f} s, and none can be confirmed to be gone: {cause}"
            self._tell(Alarm(AlarmKind.CLOUD, "list", text))

    async def _compare(self, user: UserId, listed: dict[str, CloudPod]) -> None:
        # Looked up here and not in the loop: the session may have moved while others were compared.
        watched = self._watched_pod(user)
        if watched is None:
            return
        pod_id, seen = watched, listed.get(watched)
        if seen is not None:
            self._misses.pop(pod_id, None)
            if self._sessions.update_pod(
                user, cost_per_hour_usd=seen.cost_per_hour_usd, gpu_type=seen.gpu_type
            ):
                self._unsaved.add(user)
            if not seen.is_running:
                text = f": {seen.status_text}" if seen.status_text else ""
                self._signals.send(user, Event.VANISHED, f"the cloud says that the pod does not run{text}")
            return
        self._misses[pod_id] += 1
        if self._misses[pod_id] < MISSES_UNTIL_GONE:
            return
        try:
            found = await self._cloud.get_pod(pod_id)
        except CloudError as error:
            logger.warning("RunPod session %s: whether its pod exists is unknown: %s", user.key, error)
            return
        self._misses.pop(pod_id, None)
        # A signal about a pod that was left meanwhile would end the next one.
        if found is None and self._watched_pod(user) == pod_id:
            self._signals.send(user, Event.VANISHED, "the cloud does not know the pod any more")

    def _watched_pod(self, user: UserId) -> str | None:
        """Id of the pod whose disappearance would be news, or None."""
        session = self._sessions.get(user)
        return session.pod.pod_id if session.state in WATCHED and session.pod is not None else None
