"""What happens to the pods when the gateway ends."""

import asyncio
import contextlib
import logging
from typing import Final

from comfy_gateway.core.life.session import Session
from comfy_gateway.service.life.endings import Endings
from comfy_gateway.service.life.life import Vault
from comfy_gateway.service.life.sessions import Sessions

logger = logging.getLogger(__name__)

FILES_S: Final = 3.0
"""For the last files of a pod that is to end with the gateway, which itself has eight seconds."""


class Farewell:
    """Says what lives on and costs money, or ends it where that is wanted."""

    def __init__(self, sessions: Sessions, endings: Endings, vault: Vault, *, is_ending: bool) -> None:
        self._sessions = sessions
        self._endings = endings
        self._vault = vault
        self._is_ending = is_ending

    async def say(self) -> None:
        """One line for each pod. Ending them is asked for at once for all; the caller bounds the time."""
        billing = self._sessions.billing()
        if self._is_ending:
            await asyncio.gather(*(self._end(session) for session in billing))
            return
        for session in billing:
            is_known = session.pod is not None and session.pod.pod_id is not None
            _tell(session, "lives on" if is_known else "may live on, for its order is not answered yet")

    async def _end(self, session: Session) -> None:
        pod = session.pod
        if pod is None or pod.pod_id is None:
            _tell(session, "may live on, for its order is not answered yet")
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FILES_S):
                await self._vault.complete(pod.name, FILES_S, patience_s=1.0)
        try:
            was_asked = await self._endings.ask_once(pod.pod_id, pod.name)
        except ValueError as error:  # ordered under another tag; the others end all the same
            _tell(session, f"lives on, for {error},")
        else:
            _tell(session, "was asked to end" if was_asked else "lives on, for it could not be ended")


def _tell(session: Session, what: str) -> None:
    pod = session.pod
    name = pod.name if pod else "?"
    price = pod.cost_per_hour_usd if pod else None
    rate = "an unknown price" if price is None else f"${price:.2f}"
    logger.warning("RunPod session %s: pod %s %s at %s an hour", session.user.key, name, what, rate)
