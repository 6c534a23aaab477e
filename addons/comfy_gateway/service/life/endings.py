"""The end of a pod: asked for until the cloud itself confirms it."""

import logging
from collections.abc import Callable

from comfy_gateway.core.errors import CloudError
from comfy_gateway.core.money.alarms import Alarm, AlarmKind
from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.core.ports import Clock, Cloud

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 2.0
MOST_WAIT_S = 8.0
"""Once the cloud tells the truth again, what had to end is gone within one tick of the reconciler."""
TRIES_UNTIL_ALARM = 5


class Endings:
    """Terminates pods that are ours, and no other."""

    def __init__(self, cloud: Cloud, names: PodNames, clock: Clock, tell: Callable[[Alarm], None]) -> None:
        self._tell = tell
        self._cloud = cloud
        self._names = names
        self._clock = clock

    async def end(self, pod_id: str, name: str) -> str:
        """Return once the cloud has confirmed that the pod is gone; until then ask again, for ever.

        Returns what was found, in words for the log: a pod that has another name by now is not ours to end.
        Raises ValueError, before anything is sent, for a name that is not ours.
        """
        if not self._names.is_ours(name):
            raise ValueError(f"pod {name!r} is not one of ours")
        tries = 0
        wait_s = FIRST_WAIT_S
        while (found := await self._try(pod_id, name)) is None:
            tries += 1
            if tries % TRIES_UNTIL_ALARM == 0:
                text = f"pod {name} does not end after {tries} tries and may cost money"
                self._tell(Alarm(AlarmKind.ENDING, name, text))
            await self._clock.sleep(wait_s)
            wait_s = min(wait_s * 1.5, MOST_WAIT_S)
        return found

    async def ask_once(self, pod_id: str, name: str) -> bool:
        """One request for the end without waiting for it; True when it was sent or the pod is gone already."""
        if not self._names.is_ours(name):
            raise ValueError(f"pod {name!r} is not one of ours")
        try:
            pod = await self._cloud.get_pod(pod_id)
            if pod is not None and pod.name == name:
                await self._cloud.terminate_pod(pod_id)
        except CloudError as error:
            logger.warning("RunPod session: pod %s could not be ended: %s", name, error)
            return False
        return True

    async def why_gone(self, pod_id: str) -> str | None:
        """The cloud's word, fit for the log, that the pod does not run any more; None where it may run."""
        try:
            pod = await self._cloud.get_pod(pod_id)
            if pod is not None:
                return None if pod.is_running else "the cloud says that the pod does not run"
            is_listed = any(listed.id == pod_id for listed in await self._cloud.list_pods())
        except CloudError as error:
            logger.warning("RunPod session: whether pod %s exists is unknown: %s", pod_id, error)
            return None
        return None if is_listed else "the cloud does not know the pod any more"

    async def _try(self, pod_id: str, name: str) -> str | None:
        """Look, and ask for the end of what is still there; None while it may be. A termination that reports success
        proves nothing.
        """
        try:
            pod = await self._cloud.get_pod(pod_id)
            if pod is None:
                # One look can lie; the list is the second witness.
                is_listed = any(listed.id == pod_id for listed in await self._cloud.list_pods())
                return None if is_listed else "the cloud confirms that the pod is gone"
            if pod.name != name:
                text = f"the pod that was {name} has another name now and may cost money; it is left alone"
                self._tell(Alarm(AlarmKind.ENDING, name, text))
                return "the pod has another name now and is left alone"
            await self._cloud.terminate_pod(pod_id)
        except CloudError as error:
            logger.warning("RunPod session: pod %s is not confirmed gone: %s", name, error)
        return None
