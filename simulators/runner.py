"""Serves an application, and ends without leaving a connection open."""

import asyncio
import socket
from typing import Any, Final

from aiohttp import web

ACCEPT_STEPS: Final = 3
"""Turns of the loop from asyncio's accept to its protocol: the task that makes the transport begins, the transport
tells the protocol, the task hears of it (``BaseSelectorEventLoop._accept_connection2``)."""


class Runner(web.AppRunner):
    """An AppRunner that lets the loop hand over what it has accepted before it closes.

    asyncio cannot give a connection to a server that was closed in between, and forgets it without closing it.
    """

    __slots__ = ("_listening",)

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._listening: list[socket.socket] = []

    async def listen(self, host: str, port: int, *, backlog: int = 128) -> int:
        """Listen on an address; port 0 takes a free one. Returns the port. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=backlog)
        self._listening.append(listening)
        await web.SockSite(self, listening, backlog=backlog).start()
        bound: int = listening.getsockname()[1]
        return bound

    async def cleanup(self) -> None:
        """Accept nothing more, take in what was accepted, and end."""
        loop = asyncio.get_running_loop()
        for listening in self._listening:
            loop.remove_reader(listening)
        for _ in range(ACCEPT_STEPS):
            await asyncio.sleep(0)
        await super().cleanup()
        for listening in self._listening:
            listening.close()
        self._listening.clear()
