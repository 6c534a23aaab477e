"""The sockets of `/ws`, with the habits that a proxy must live with.

- A handler that ends removes `sockets[sid]`, whoever is registered there by then: after a second socket with
  the same id was opened, closing the first leaves the second without events.
- Messages go out one after another, each socket awaited: one that does not read stalls all others.
- No heartbeat.
"""

import asyncio
import json
import logging
import struct
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web
from PIL import Image

from simulators.comfyui.mood import Mood
from simulators.comfyui.pictures import preview_bytes

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
JPEG = 1
MOST_BODY_BYTES = 100 * 1024 * 1024
FEATURES = {"supports_preview_metadata": True, "max_upload_size": MOST_BODY_BYTES}

log = logging.getLogger(__name__)

type Message = tuple[dict[str, Any] | bytes, str | None]
"""What goes out, and the sid it goes to; None is everybody."""


class Sockets:
    """`state` tells the queue for the first message, `resumed` the node running for a client id, or None."""

    def __init__(
        self, state: Callable[[], dict[str, Any]], resumed: Callable[[str], str | None], mood: Mood
    ) -> None:
        self._state = state
        self._resumed = resumed
        self._mood = mood
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._transports: set[asyncio.Transport] = set()
        self.registered: dict[str, web.WebSocketResponse] = {}
        self.features: dict[str, dict[str, Any]] = {}

    @property
    def open_count(self) -> int:
        """Connections, those that are no longer registered included."""
        return len(self._transports)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):  # gone already
            return socket
        sid = request.query.get("clientId", "") or uuid.uuid4().hex
        self._transports.add(transport)
        self.registered[sid] = socket
        self.features[sid] = {}
        try:
            await self._send({"type": "status", "data": {"status": self._state(), "sid": sid}}, sid)
            node_id = self._resumed(sid)
            if node_id is not None:
                await self._send({"type": "executing", "data": {"node": node_id}}, sid)
            await self._listen(socket, sid)
        finally:
            self._transports.discard(transport)
            self.registered.pop(sid, None)
            self.features.pop(sid, None)
        return socket

    async def _listen(self, socket: web.WebSocketResponse, sid: str) -> None:
        first = True
        async for message in socket:
            await self._mood.until_heard()
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                data = json.loads(message.data)
            except json.JSONDecodeError:
                log.warning("invalid JSON from socket %s", sid)
                continue
            if first and isinstance(data, dict) and data.get("type") == "feature_flags":
                self.features[sid] = data.get("data", {})
                await self._send({"type": "feature_flags", "data": FEATURES}, sid)
            first = False

    def publish(self, kind: str, data: dict[str, Any], sid: str | None = None) -> None:
        """Queues a message for one sid, or for everybody. One that nobody is registered for is lost."""
        self._outbox.put_nowait(({"type": kind, "data": data}, sid))

    def supports_preview_metadata(self, sid: str | None) -> bool:
        return self.features.get(sid or "", {}).get("supports_preview_metadata") is True

    def publish_preview(self, image: Image.Image, metadata: dict[str, Any], sid: str | None) -> None:
        """A preview in the form that the client asked for by its feature flags; in the old form otherwise."""
        picture = preview_bytes(image)
        if self.supports_preview_metadata(sid):
            told = json.dumps({**metadata, "image_type": "image/jpeg"}).encode()
            frame = struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(told)) + told + picture
        else:
            frame = struct.pack(">II", PREVIEW_IMAGE, JPEG) + picture
        self._outbox.put_nowait((frame, sid))

    async def publish_forever(self) -> None:
        while True:
            message, sid = await self._outbox.get()
            await self._mood.until_heard()
            await self._send(message, sid)

    async def _send(self, message: dict[str, Any] | bytes, sid: str | None) -> None:
        if sid is None:
            receivers = list(self.registered.values())
        else:
            receivers = [self.registered[sid]] if sid in self.registered else []
        for socket in receivers:
            try:
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_json(message)
            except (aiohttp.ClientError, ConnectionError) as error:
                log.warning("send error: %s", error)

    def drop(self) -> int:
        """Cuts every connection without a closing frame; returns how many."""
        count = len(self._transports)
        for transport in list(self._transports):
            transport.abort()
        return count
