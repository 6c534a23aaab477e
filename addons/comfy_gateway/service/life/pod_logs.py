"""ComfyUI's log in each pod, also when the pod is gone: why one failed is asked when it can tell nothing any more."""

import logging
from collections.abc import Sequence
from typing import Final

from comfy_gateway.core.errors import AgentUnavailable
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.session import Pod
from comfy_gateway.core.pods.pod_address import PodAddresses
from comfy_gateway.core.ports import Agent, LogShelf

logger = logging.getLogger(__name__)

KEPT_LINES: Final = 500


class PodLogs:
    """Reads them through the pods' agents, and keeps the end of each."""

    def __init__(self, *, agent: Agent, shelf: LogShelf, addresses: PodAddresses, keys: Keys) -> None:
        self._agent = agent
        self._shelf = shelf
        self._addresses = addresses
        self._keys = keys

    async def note(self, pod: Pod) -> None:
        """Keep the end of the log as it is now. A log that cannot be had, or kept, is no trouble of the pod's."""
        try:
            if lines := await self._ask(pod, KEPT_LINES):
                await self._shelf.keep(pod.name, lines)
        except (AgentUnavailable, OSError, ValueError) as error:
            logger.debug("the log of %s is not kept: %s", pod.name, error)

    async def tail(self, pod: Pod, lines: int) -> Sequence[str]:
        """From the pod, or else what was kept of it last. Raises AgentUnavailable where there is neither."""
        try:
            return await self._ask(pod, lines)
        except AgentUnavailable:
            if (kept := await self.kept(pod.name, lines)) is None:
                raise
            return kept

    async def kept(self, pod_name: str, lines: int) -> Sequence[str] | None:
        """What is kept of a pod, which may be long gone; None where nothing is."""
        try:
            return await self._shelf.read(pod_name, lines)
        except OSError as error:
            logger.warning("the log that was kept of %s cannot be read: %s", pod_name, error.strerror)
            return None

    async def _ask(self, pod: Pod, lines: int) -> Sequence[str]:
        if pod.pod_id is None:
            raise AgentUnavailable("the pod has no address yet")
        url = self._addresses.agent_url(pod.pod_id)
        return await self._agent.log(url, token=self._keys.agent_token(pod.name), lines=lines)
