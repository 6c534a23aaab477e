"""One client's socket: a bounded outbox, a writer, pings. After results a ping asks whether they have arrived."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from comfy_gateway.core.events import frames
from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.events.message_rate import MessageRate
from comfy_gateway.core.events.outbox import Outbox
from comfy_gateway.core.ports import Clock
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats

logger = logging.getLogger(__name__)

GONE: Final = (ConnectionError, aiohttp.ClientError)
"""The network has closed the socket. No error: whoever reads from it sees that too and ends it."""
ENDED: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class ClientSocket:
    """The client's end. ``put`` never waits; what the client does not read in time costs its outbox only."""

    def __init__(self, limits: RelayLimits, stats: RelayStats, clock: Clock) -> None:
        self._limits = limits
        self._stats = stats
        self._clock = clock
        # aiohttp's own heartbeat cuts a client whose pong is late by half an interval. A client behind a
        # slow line gets our ping after all that is queued before it, so the pings are our own and more
        # patient.
        self._socket = web.WebSocketResponse(
            timeout=limits.close_timeout_s,
            autoclose=False,
            autoping=False,
            compress=False,
            max_msg_size=limits.max_client_message_bytes,
            decode_text=False,
        )
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox(
            preview_budget_bytes=limits.preview_budget_bytes, event_budget_bytes=limits.event_budget_bytes
        )
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._close_code: int = WSCloseCode.OK
        self._close_reason = b""
        self._heard_at_s = clock.monotonic()
        self._asked_for = 0
        self._rate = MessageRate(limits.client_messages_per_s)
        self.confirmed: Callable[[int], None] = lambda _number: None
        """Called with the number of a receipt, or 0, when the client has confirmed what it got."""
        self.is_greeted = False
        """Whether it has had its first ``status``."""
        self.has_spoken = False
        """Whether it has sent a message."""
        self.is_page = False
        """Whether a page of ComfyUI that knows the gateway's own messages listens."""

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return self._socket

    def can_accept(self, request: web.Request) -> bool:
        """Whether the request asks for a WebSocket."""
        return bool(self._socket.can_prepare(request))

    async def accept(self, request: web.Request) -> None:
        """Answer the handshake. Raises ConnectionError when the client is gone."""
        self._transport = request.transport
        await self._socket.prepare(request)

    def put(self, frame: Frame) -> None:
        """Send a frame soon. A client that has let too many events pile up is closed with 1013 instead."""
        if self._ending.is_set():
            return
        dropped_before = self._outbox.dropped_previews
        is_taken = self._outbox.put(frame)
        self._stats.dropped_previews += self._outbox.dropped_previews - dropped_before
        self._wake.set()
        if not is_taken:
            self._stats.overflows += 1
            logger.info(
                "a client's socket is closed: it does not read, %d bytes wait", self._outbox.unsent_bytes
            )
            self.end(WSCloseCode.TRY_AGAIN_LATER)

    def end(self, code: int, reason: bytes = b"") -> None:
        """Close the socket with this code; what waits is not sent any more."""
        if not self._ending.is_set():
            self._close_code, self._close_reason = code, reason
            self._outbox.clear()
            self._ending.set()

    async def run(self, hear: Callable[[Frame], None]) -> None:
        """Give ``hear`` what the client sends and send what was put, until either side closes."""
        self._stats.client_sockets += 1
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._write(), name="relay client: writer"),
                    group.create_task(self._ping(), name="relay client: pings"),
                ]
                group.create_task(self._close(), name="relay client: closer")
                await self._read(hear)
                self.end(WSCloseCode.OK)
                for helper in helpers:
                    helper.cancel()
        finally:
            self._stats.client_sockets -= 1
            self.end(WSCloseCode.OK)
            if not self._socket.closed:
                self._abort()

    async def _read(self, hear: Callable[[Frame], None]) -> None:
        while True:
            message = await self._socket.receive()
            self._heard_at_s = self._clock.monotonic()
            if message.type in ENDED:
                return
            receipt = self._receipt_of(bytes(message.data)) if message.type is WSMsgType.PONG else 0
            if not receipt and not self._rate.takes(self._heard_at_s):
                self._stats.floods += 1
                logger.warning("a client's socket is closed: it sends too many messages")
                self.end(WSCloseCode.POLICY_VIOLATION, b"too many messages")
                return
            match message.type:
                case WSMsgType.TEXT:
                    hear(frames.text(bytes(message.data)))
                case WSMsgType.BINARY:
                    hear(frames.binary(bytes(message.data)))
                case WSMsgType.PING:
                    with contextlib.suppress(*GONE):
                        await self._socket.pong(bytes(message.data))
                case WSMsgType.PONG:
                    self.confirmed(receipt)

    def _receipt_of(self, pong: bytes) -> int:
        """The number in it; 0 for the pong to a ping of another purpose, or one that nobody asked for."""
        number = int(pong) if pong.isdigit() and len(pong) < 20 else 0
        return number if number <= self._asked_for else 0

    async def _write(self) -> None:
        with contextlib.suppress(*GONE):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (frame := self._outbox.take()) is not None:
                    opcode = WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY
                    await self._socket.send_frame(frame.payload, opcode)
                    if frame.receipt:
                        self._asked_for = frame.receipt
                        await self._socket.ping(str(frame.receipt).encode())

    async def _ping(self) -> None:
        while True:
            await self._clock.sleep(self._limits.ping_s)
            if self._clock.monotonic() - self._heard_at_s > self._limits.silent_pings * self._limits.ping_s:
                self._abort()
                return
            with contextlib.suppress(*GONE):
                await self._socket.ping()

    async def _close(self) -> None:
        await self._ending.wait()
        # The transport closes when it has sent all it holds, which may be never.
        asyncio.get_running_loop().call_later(self._limits.close_timeout_s, self._abort)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.close_timeout_s):
                await self._socket.close(code=self._close_code, message=self._close_reason, drain=False)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
