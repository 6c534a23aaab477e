"""One list of all pods per tick, for everybody: what vanished, what it costs, and pods of ours that nobody claims."""

import logging
from collections import Counter

from comfy_gateway.core.errors import CloudError, StoreError
from comfy_gateway.core.podname import PodNames
from comfy_gateway.core.ports import Clock, Cloud, CloudPod, SessionStore
from comfy_gateway.core.session import Event, State
from comfy_gateway.core.users import UserId
from comfy_gateway.service.endings import Endings
from comfy_gateway.service.sessions import Sessions
from comfy_gateway.service.signals import Signals
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

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
        names: PodNames,
        endings: Endings,
        store: SessionStore,
        clock: Clock,
        tasks: Tasks,
        interval_s: float,
        stray_grace_s: float,
    ) -> None:
        self._cloud = cloud
        self._sessions = sessions
        self._signals = signals
        self._names = names
        self._endings = endings
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._interval_s = interval_s
        self._stray_grace_s = stray_grace_s
        self._misses: Counter[str] = Counter()
        self._stray_since_s: dict[str, float] = {}
        self._ending: set[str] = set()

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
            return
        for session in self._sessions:
            await self._compare(session.user, listed)
        await self._find_strays(listed)

    async def _compare(self, user: UserId, listed: dict[str, CloudPod]) -> None:
        # Looked up here and not in the loop: the session may have moved while others were compared.
        watched = self._watched_pod(user)
        if watched is None:
            return
        pod_id, seen = watched, listed.get(watched)
        if seen is not None:
            self._misses.pop(pod_id, None)
            self._sessions.update_pod(user, cost_per_hour_usd=seen.cost_per_hour_usd, gpu_type=seen.gpu_type)
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

    async def _find_strays(self, listed: dict[str, CloudPod]) -> None:
        """End pods that carry our tag and that no session claims: known ones at once, unknown ones after a grace."""
        now_s = self._clock.monotonic()
        strays = {id_: pod for id_, pod in listed.items() if self._is_stray(pod)}
        self._stray_since_s = {id_: self._stray_since_s.get(id_, now_s) for id_ in strays}
        for id_, pod in strays.items():
            if id_ in self._ending:
                continue
            try:
                is_known = await self._store.knows_pod(pod.name)
            except StoreError as error:
                logger.warning("RunPod session: pod %s is nobody's or unknown: %s", pod.name, error)
                continue
            # Look again: a session may have claimed the pod while the store was asked.
            if not self._is_stray(pod):
                continue
            waited_s = now_s - self._stray_since_s[id_]
            if is_known or waited_s >= self._stray_grace_s:
                self._ending.add(id_)
                logger.warning(
                    "RunPod session: pod %s belongs to no session (%s) and is ended",
                    pod.name,
                    "its attempt was given up" if is_known else f"unknown for {waited_s:.0f} s",
                )
                self._tasks.start(self._end(id_, pod.name), name=f"end of stray {pod.name}")

    def _is_stray(self, pod: CloudPod) -> bool:
        if not self._names.is_ours(pod.name):
            return False
        for session in self._sessions:
            if session.pod is None:
                continue
            if session.pod.pod_id == pod.id:
                return False
            if session.pod.pod_id is None and session.pod.name == pod.name:
                return False  # ordered just now; its id is on the way
        return True

    async def _end(self, pod_id: str, name: str) -> None:
        try:
            await self._endings.end(pod_id, name)
        finally:
            self._ending.discard(pod_id)
