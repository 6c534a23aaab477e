"""/metrics, /stream, /ws, /healthz and /version."""

import asyncio
import contextlib
import json

from aiohttp import WSMsgType, web

import agent
from agent.comfyui import ComfyUI
from agent.exposition import Exposition, wants_prometheus
from agent.sampler import Sample, Sampler

FIRST_SAMPLE_S = 10.0
RECONNECT_MS = 3000
HEARTBEAT_S = 15.0
STALLED_S = 30.0
"""A listener that takes nothing for so long is gone."""
MOST_INTERVAL_S = 3600.0
MOST_WISH_BYTES = 1024


class TelemetryRoutes:
    def __init__(self, sampler: Sampler, comfyui: ComfyUI, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._sampler = sampler
        self._comfyui = comfyui
        self._heartbeat_s = heartbeat_s
        self._exposition = Exposition(lambda: sampler.latest)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self.healthz),
            web.get("/version", self.version),
            web.get("/metrics", self.metrics),
            web.get("/stream", self.stream, allow_head=False),
            web.get("/ws", self.socket, allow_head=False),
        ]

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"agent": agent.__version__, "comfyui": await self._comfyui.version()})

    async def metrics(self, request: web.Request) -> web.Response:
        """The newest sample; the first one is waited for."""
        try:
            async with asyncio.timeout(FIRST_SAMPLE_S):
                sample = self._sampler.latest or await self._sampler.after(0)
        except TimeoutError as late:
            raise web.HTTPServiceUnavailable(text="there is no sample yet") from late
        accept = ",".join(request.headers.getall("Accept", []))
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        if wants_prometheus(accept):
            body, content_type = self._exposition.written(accept)
            return web.Response(body=body, headers={**headers, "Content-Type": content_type})
        return web.Response(text=sample.text, content_type="application/json", headers=headers)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events. The id is the sample's time in milliseconds; nothing old is sent again."""
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would hold events back
            }
        )
        await response.prepare(request)
        # A listener that left is no fault.
        with contextlib.suppress(ConnectionError, TimeoutError):
            await _write(response, f"retry: {RECONNECT_MS}\n\n")
            number = 0
            while True:
                sample = await self._news(number, self._heartbeat_s)
                if sample is None:
                    await _write(response, ": still here\n\n")
                else:
                    number = sample.number
                    await _write(response, f"id: {sample.timestamp * 1000:.0f}\ndata: {sample.text}\n\n")
        return response

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """The same samples as messages; {"interval_s": n} thins them out."""
        socket = web.WebSocketResponse(
            heartbeat=self._heartbeat_s, max_msg_size=MOST_WISH_BYTES, compress=False
        )
        await socket.prepare(request)
        wish = _Wish(self._sampler.interval_s)
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(socket, wish), name="agent: tell a socket")
            try:
                async for message in socket:
                    if message.type is WSMsgType.TEXT and (fault := wish.take(message.data)):
                        await socket.send_json({"error": fault})
            finally:
                telling.cancel()
        return socket

    async def _tell(self, socket: web.WebSocketResponse, wish: "_Wish") -> None:
        number, sent_s = 0, None
        # Half an interval of grace: samples are not taken to the millisecond.
        grace_s = self._sampler.interval_s / 2
        with contextlib.suppress(ConnectionError, TimeoutError):
            while True:
                sample = await self._sampler.after(number)
                number = sample.number
                if sent_s is None or sample.uptime_s - sent_s >= wish.interval_s - grace_s:
                    async with asyncio.timeout(STALLED_S):
                        await socket.send_str(sample.text)
                    sent_s = sample.uptime_s
        await socket.close()

    async def _news(self, number: int, within_s: float) -> Sample | None:
        try:
            async with asyncio.timeout(within_s):
                return await self._sampler.after(number)
        except TimeoutError:
            return None


class _Wish:
    """How often the other side of a socket wants to be told."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self.interval_s = least_s

    def take(self, text: str) -> str | None:
        """Heed a message; returns what is wrong with it."""
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        wished = told.get("interval_s") if isinstance(told, dict) else None
        if not isinstance(wished, int | float) or isinstance(wished, bool) or not self._allows(wished):
            return f'{{"interval_s": n}} is meant, with n from {self._least_s:g} to {MOST_INTERVAL_S:g}'
        self.interval_s = float(wished)
        return None

    def _allows(self, interval_s: float) -> bool:
        return self._least_s <= interval_s <= MOST_INTERVAL_S


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(STALLED_S):
        await response.write(text.encode())
