"""One socket of our own to each shared server: as long as it stays open, that server has not restarted."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import aiohttp
from aiohttp import WSMsgType

from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.upstream import Backend, front_door_headers

logger = logging.getLogger(__name__)

PING_S: Final = 5.0
"""A host that vanished without closing is noticed within one and a half of these."""
CONNECT_TIMEOUT_S: Final = 10.0
PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 15.0
ENDED: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class SocketWitness:
    """Implements ``service.prompts.rescue.Witness``. ``run`` watches one server for ever.

    The HTTP session is its owner's.
    """

    def __init__(self, session: aiohttp.ClientSession, clock: Clock, *, pause_s: float = PAUSE_S) -> None:
        """``pause_s``: between the loss of a socket and the next attempt; doubles while nothing answers."""
        self._pause_s = pause_s
        self._session = session
        self._clock = clock
        self._sid = f"gateway-witness-{secrets.token_hex(8)}"
        self._open_since: dict[str, datetime] = {}

    def is_unbroken_since(self, backend_id: str, when: datetime) -> bool:
        """Whether this server's socket was open at that time and ever since."""
        since = self._open_since.get(backend_id)
        return since is not None and since <= when

    async def run(self, backends: Sequence[Backend]) -> None:
        """Watch all of them, for ever."""
        async with asyncio.TaskGroup() as group:
            for backend in backends:
                group.create_task(self._watch(backend), name=f"witness of {backend.id}")

    async def _watch(self, backend: Backend) -> None:
        pause_s = self._pause_s
        while True:
            try:
                was_open = await self._stay(backend)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                was_open = False
                logger.debug("no witness of %s: %s", backend.id, type(error).__name__)
            pause_s = self._pause_s if was_open else min(2 * pause_s, MOST_PAUSE_S)
            await self._clock.sleep(pause_s)

    async def _stay(self, backend: Backend) -> bool:
        """Open the socket and return when it is closed."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            socket = await self._session.ws_connect(
                backend.upstream.url(f"/ws?clientId={self._sid}"),
                headers=front_door_headers(backend.token),
                heartbeat=PING_S,
                max_msg_size=0,
            )
        try:
            self._open_since[backend.id] = self._clock.now()
            async with socket:
                while (await socket.receive()).type not in ENDED:
                    pass  # it says only how long the queue is
        finally:
            del self._open_since[backend.id]
            logger.info("the socket to %s was closed: it may have restarted", backend.id)
        return True
