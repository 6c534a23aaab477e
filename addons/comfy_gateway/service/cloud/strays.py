"""Pods that carry our tag and that no session claims: each of them costs money for nobody."""

import logging
from collections.abc import Mapping

from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.pods import doubles
from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.core.ports import Clock, CloudPod, SessionStore
from comfy_gateway.service.life.endings import Endings
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)


class Strays:
    """Ends pods of attempts that were given up at once, and pods that nobody knows after a grace.

    The grace counts from the first time that any life of the gateway has seen the pod: one that restarts every few
    minutes must not keep it alive.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        names: PodNames,
        endings: Endings,
        store: SessionStore,
        clock: Clock,
        tasks: Tasks,
        grace_s: float,
    ) -> None:
        self._sessions = sessions
        self._names = names
        self._endings = endings
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._grace_s = grace_s
        self._since_s: dict[str, float] = {}
        """By pod id: the first sight on the monotonic clock, which may be before this process began."""
        self._stored: set[str] = set()
        """Ids whose first sight the store has given."""
        self._ending: set[str] = set()

    def knows(self, pod_id: str) -> bool:
        """Whether the last list had this pod as nobody's."""
        return pod_id in self._since_s

    async def judge(self, listed: Mapping[str, CloudPod]) -> None:
        """Look at one truthful list."""
        now_s = self._clock.monotonic()
        strays = {id_: pod for id_, pod in listed.items() if self._is_stray(pod, listed)}
        self._since_s = {id_: self._since_s.get(id_, now_s) for id_ in strays}
        await self._forget_all_but(strays)
        for id_, pod in strays.items():
            if id_ in self._ending:
                continue
            is_known = await self._look_up(pod)
            # Look again: a session may have claimed the pod while the store was asked.
            if not self._is_stray(pod, listed):
                continue
            waited_s = now_s - self._since_s[id_]
            if is_known or waited_s >= self._grace_s:
                self._ending.add(id_)
                logger.warning(
                    "RunPod session: pod %s belongs to no session (%s) and is ended",
                    pod.name,
                    "its attempt was given up" if is_known else f"unknown for {waited_s:.0f} s",
                )
                self._tasks.start(self._end(id_, pod.name), name=f"end of stray {pod.name}")

    async def _look_up(self, pod: CloudPod) -> bool:
        """Whether we have ordered it; sets back the beginning of its grace to what an earlier life has seen.

        A store that does not answer knows nothing: the grace then counts from our own first sight, and its end is not
        put off, for all sessions are in memory.
        """
        try:
            if pod.id not in self._stored:
                now = self._clock.now()
                seen_s = (now - await self._store.first_sight(pod.id, at=now)).total_seconds()
                self._since_s[pod.id] = min(self._since_s[pod.id], self._clock.monotonic() - seen_s)
                self._stored.add(pod.id)
            return await self._store.knows_pod(pod.name)
        except StoreError as error:
            logger.warning("RunPod session: pod %s is nobody's or unknown: %s", pod.name, error)
            return False

    async def _forget_all_but(self, strays: Mapping[str, CloudPod]) -> None:
        if self._stored <= strays.keys():
            return
        try:
            await self._store.forget_sights(but=strays.keys())
        except StoreError:
            return  # the next list says so again
        self._stored &= strays.keys()

    def _is_stray(self, pod: CloudPod, listed: Mapping[str, CloudPod]) -> bool:
        if not self._names.is_ours(pod.name):
            return False
        for session in self._sessions:
            if session.pod is None:
                continue
            if session.pod.pod_id == pod.id:
                return False
            if session.pod.pod_id is None and session.pod.name == pod.name:
                # Its id is on the way. Of doubles that is the id of one: the others need not wait for it.
                same_name = (other for other in listed.values() if other.name == pod.name)
                return doubles.kept(same_name).id != pod.id
        return True

    async def _end(self, pod_id: str, name: str) -> None:
        try:
            await self._endings.end(pod_id, name)
        finally:
            self._ending.discard(pod_id)
