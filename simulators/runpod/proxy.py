"""The public proxy in front of the pods' ports: `/proxy/{pod_id}/{port}/…`.

As on the real one: 404 for an unknown pod or a port that was not declared as http, 502 while nothing listens,
413 above 100 MB, 524 after 100 s without an answer, and silent sockets are cut after 100 s. There is no
authentication but what the pod asks for itself: here the front door's token, as our image does.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp import ClientWebSocketResponse, WSMsgType, hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from simulators.runpod.agent import answer_as_agent, note_lease
from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.pods import SimPod

TOKEN_HEADER = "X-Comfy-Gateway-Token"  # noqa: S105 - the name of a header
TOKEN_ENV = "GATEWAY_POD_TOKEN"  # noqa: S105 - the name of a variable

_HOP_BY_HOP = frozenset(
    name.lower()
    for name in (
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Expect",
    )
)


@dataclass(frozen=True)
class ProxyLimits:
    """Of the proxy, not of the pod. Real time, whatever the cloud's clock says.

    unregistered_status  the answer while a declared port is not yet registered (`Delays.port_s`)
    """

    body_bytes: int = 100 * 1024 * 1024
    response_s: float = 100.0
    socket_idle_s: float = 100.0
    unregistered_status: int = 502


class _TooLargeError(Exception):
    """More bytes came than pass the proxy."""


class _Upload:
    """A body on its way into the pod. The patience for an answer counts from its last piece.

    After the transfer was broken off, `too_large` says whether the limit was the cause.
    """

    def __init__(self, body: aiohttp.StreamReader, limits: ProxyLimits) -> None:
        self._body = body
        self._limits = limits
        self.too_large = False
        self.patience: asyncio.Timeout | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        passed_bytes = 0
        async for piece in self._body.iter_any():
            passed_bytes += len(piece)
            if passed_bytes > self._limits.body_bytes:
                self.too_large = True
                raise _TooLargeError
            if self.patience is not None and not self.patience.expired():
                self.patience.reschedule(asyncio.get_running_loop().time() + self._limits.response_s)
            yield piece


class PodProxy:
    def __init__(self, cloud: RunPodSimulator, limits: ProxyLimits) -> None:
        self._cloud = cloud
        self._limits = limits

    async def handle(self, request: web.Request) -> web.StreamResponse:
        pod_id, port_text = request.match_info["pod_id"], request.match_info["port"]
        # the path as it came: a decoded %2F would name another file
        raw_tail = request.raw_path.split("/", 4)[4:]
        tail = "/" + (raw_tail[0] if raw_tail else "")
        now_s = self._cloud.clock.monotonic()
        pod = self._cloud.pods.get(pod_id)
        if (
            pod is None
            or pod.ended_at_s is not None
            or not port_text.isdigit()
            or int(port_text) not in pod.http_ports
        ):
            return _page(404)
        port = int(port_text)
        if request.content_length is not None and request.content_length > self._limits.body_bytes:
            return _page(413)
        if pod.up_for_s(now_s) is not None and not pod.ports_registered(now_s):
            return _page(self._limits.unregistered_status)
        with self._cloud.hosting.connection(pod, port, request.transport):
            if port == self._cloud.agent_port and pod.agent_listens(now_s):
                return await self._agent(pod, request, tail)
            if port == self._cloud.comfy_port and pod.app_listens(now_s):
                return await self._front_door(pod, request, tail)
        return _page(502)

    async def _agent(self, pod: SimPod, request: web.Request, tail: str) -> web.StreamResponse:
        inside = URL(tail, encoded=True)
        note_lease(self._cloud, pod, request, inside.path)
        if self._cloud.agent == "leased" or (self._cloud.agent == "real" and inside.path != "/metrics"):
            env = self._cloud.agent_env(pod)
            url = URL(await self._cloud.hosting.agent_url(pod, env) + tail, encoded=True)
            return await self._http(request, url, _forwarded(request.headers))
        try:
            pieces = _Upload(request.content, self._limits).pieces()
            return await answer_as_agent(self._cloud, pod, request, inside, pieces)
        except _TooLargeError:
            return _page(413)

    async def _front_door(self, pod: SimPod, request: web.Request, tail: str) -> web.StreamResponse:
        token = pod.env.get(TOKEN_ENV)
        given = request.headers.get(TOKEN_HEADER, "")
        if token and not pod.is_open and not hmac.compare_digest(given.encode(), token.encode()):
            return web.json_response({"error": "unauthorized"}, status=401)
        url = URL(await self._cloud.hosting.url(pod) + tail, encoded=True)
        headers = _forwarded(request.headers)
        headers.popall(TOKEN_HEADER, None)
        headers[hdrs.HOST] = f"{pod.id}-{self._cloud.comfy_port}.proxy.runpod.net"
        if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
            return await self._socket(request, url, headers)
        return await self._http(request, url, headers)

    async def _http(self, request: web.Request, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
        upload = _Upload(request.content, self._limits)
        body = upload.pieces() if request.body_exists else None
        try:
            async with asyncio.timeout(self._limits.response_s) as patience:
                upload.patience = patience
                upstream = await self._cloud.hosting.session.request(
                    request.method, url, headers=headers, data=body, allow_redirects=False
                )
                # an answer may come before the end of the body
                upload.patience = None
        except TimeoutError:
            return _page(524)
        except aiohttp.ClientError:
            return _page(413 if upload.too_large else 502)
        async with upstream:
            response = web.StreamResponse(
                status=upstream.status, reason=upstream.reason, headers=_forwarded(upstream.headers)
            )
            await response.prepare(request)
            try:
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
            except (aiohttp.ClientError, ConnectionError):
                # the pod died in mid-answer: the client must see it broken, not complete
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    async def _socket(self, request: web.Request, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
        protocols = [
            part.strip() for part in headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",") if part.strip()
        ]
        for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
            headers.popall(name, None)
        try:
            upstream = await self._cloud.hosting.session.ws_connect(
                url, headers=headers, protocols=protocols, autoping=False, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as refused:
            return _page(refused.status)
        except aiohttp.ClientError:
            return _page(502)
        async with upstream:
            client = web.WebSocketResponse(
                autoping=False,
                compress=False,
                max_msg_size=0,
                protocols=[upstream.protocol] if upstream.protocol else [],
            )
            await client.prepare(request)
            idle_s = self._limits.socket_idle_s
            try:
                async with asyncio.timeout(idle_s) as idle, asyncio.TaskGroup() as pumps:
                    pumps.create_task(_pump(client, upstream, idle, idle_s))
                    pumps.create_task(_pump(upstream, client, idle, idle_s))
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            return client


async def _pump(
    source: web.WebSocketResponse | ClientWebSocketResponse,
    sink: web.WebSocketResponse | ClientWebSocketResponse,
    idle: asyncio.Timeout,
    idle_s: float,
) -> None:
    """Carry frames until the source ends, then close the sink alike, which ends the other pump."""
    while True:
        frame = await source.receive()
        if not sink.closed and not idle.expired():
            idle.reschedule(asyncio.get_running_loop().time() + idle_s)
        try:
            if frame.type is WSMsgType.TEXT:
                await sink.send_str(frame.data)
            elif frame.type is WSMsgType.BINARY:
                await sink.send_bytes(frame.data)
            elif frame.type is WSMsgType.PING:
                await sink.ping(frame.data)
            elif frame.type is WSMsgType.PONG:
                await sink.pong(frame.data)
            else:
                break
        except ConnectionError:
            break
    if frame.type is WSMsgType.CLOSE and frame.data:
        await sink.close(code=frame.data, message=(frame.extra or "").encode())
    else:
        await sink.close(code=aiohttp.WSCloseCode.GOING_AWAY)


def _forwarded(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers without those that speak of one connection only."""
    named = {
        name.strip().lower() for value in headers.getall(hdrs.CONNECTION, []) for name in value.split(",")
    }
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in _HOP_BY_HOP and name.lower() not in named
    )


def _page(status: int) -> web.Response:
    """The proxy's own answer: a web page, as an edge makes it."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "A timeout occurred"
    html = (
        f"<html><head><title>{status} {reason}</title></head><body><h1>{status} {reason}</h1></body></html>"
    )
    return web.Response(
        status=status, reason=reason, text=html, content_type="text/html", headers={"Server": "cloudflare"}
    )
