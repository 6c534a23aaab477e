"""Bounds of what one connection may cost: heads, chunk lines, requests sent ahead, time, and connections per address.

mitmproxy 12.2.3 has none of them: it reads a head without end, breaks on a trailer, and any byte keeps a connection
open for another ``tcp_timeout``. So some places of its HTTP/1 reader, its WebSockets and its connections are replaced
for as long as the gateway runs; the version is checked by ``ErrorPages``.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from h11 import EndOfMessage
from h11._readers import ChunkedReader
from h11._receivebuffer import blank_line_regex
from mitmproxy import connection, ctx, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, server
from mitmproxy.proxy.layers import websocket
from mitmproxy.proxy.layers.http import _events, _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from wsproto.events import CloseConnection

from comfy_gateway.core.people.callers import TrustedProxies
from comfy_gateway.core.requests.refusals import Refusal, headers_of
from comfy_gateway.core.requests.request_head import HEAD_TOO_LARGE, MAX_HEAD_BYTES, refuse_head
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.patches import Patches

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of one message of a client's WebSocket, which mitmproxy would put together without end; as ComfyUI has it."""
MAX_FRAGMENTS: Final = 4096
CLOSE_WITHIN_S: Final = 1.0
"""For the closing frame to arrive."""
MAX_AHEAD_BYTES: Final = 1024 * 1024
"""Of requests that a client sends before the one ahead of them is answered."""


class _WithoutTrailers(ChunkedReader):
    """Trailers may be dropped (RFC 9110, 6.5.1); mitmproxy raises on them, and the connection hangs."""

    def __call__(self, buf: Any) -> Any:
        found = super().__call__(buf)
        return EndOfMessage() if isinstance(found, EndOfMessage) else found


@dataclass(frozen=True)
class ConnectionBounds:
    """How long and how many."""

    head_s: float = 75.0
    """From the connection's beginning, or the last answer's end, to the end of the next head."""
    body_window_s: float = 60.0
    body_bytes_per_s: float = 500.0
    """What a body must bring on average in each window, unless the server behind us is the slow one."""
    per_address: int = 512
    exempt: TrustedProxies = field(default_factory=lambda: TrustedProxies(["127.0.0.0/8", "::1"]))
    """Addresses with any number of connections: proxies carry many people."""


class BoundsHook:
    """Stands first, so that nothing else meets what is refused here."""

    name = "gateway-bounds"

    def __init__(self, bounds: ConnectionBounds = ConnectionBounds()) -> None:
        self._bounds = bounds
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._arrived_bytes: dict[str, int] = {}
        self._connections: Counter[str] = Counter()
        self._patches = Patches()

    def load(self, _loader: object) -> None:
        """mitmproxy begins."""
        stock_head = _http1.Http1Server.read_headers
        stock_body = _http1.Http1Server.read_body
        stock_wait = _http1.Http1Server.wait

        def read_headers(server: Any, event: events.ConnectionEvent) -> Any:
            refusal = _judge(server, event) if isinstance(event, events.DataReceived) else None
            if refusal is None:
                yield from stock_head(server, event)
                return
            yield commands.SendData(server.conn, _answer(refusal))
            yield commands.CloseConnection(server.conn)
            server.state = server.done

        def read_body(server: Any, event: events.ConnectionEvent) -> Any:
            if isinstance(event, events.DataReceived) and server.conn.id in self._arrived_bytes:
                self._arrived_bytes[server.conn.id] += len(event.data)
            yield from stock_body(server, event)
            is_unfinished = server.state == server.read_body and isinstance(server.body_reader, ChunkedReader)
            if is_unfinished and len(server.buf) > MAX_HEAD_BYTES:
                yield from _break_off(server)

        def wait(server: Any, event: events.ConnectionEvent) -> Any:
            if isinstance(event, events.DataReceived) and len(server.buf) > MAX_AHEAD_BYTES:
                yield from _break_off(server)
            else:
                yield from stock_wait(server, event)

        self._patches.replace(_http1.Http1Server, "read_headers", read_headers)
        self._patches.replace(_http1.Http1Server, "read_body", read_body)
        self._patches.replace(_http1.Http1Server, "wait", wait)
        self._patches.replace(_http1, "ChunkedReader", _WithoutTrailers)

        stock_receive = websocket.WebsocketConnection.receive_data

        def receive_data(ws: Any, data: bytes | None) -> None:
            # wsproto calls this once with nothing before the connection is whole.
            if data and isinstance(ws.conn, connection.Client) and _is_too_large(ws.frame_buf):
                ws._events.append(CloseConnection(code=1009))  # noqa: SLF001 - wsproto has no other way
                asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, _cut_of(ws.conn))
            else:
                stock_receive(ws, data)

        self._patches.replace(websocket.WebsocketConnection, "receive_data", receive_data)

        stock_handle = server.ConnectionHandler.handle_connection

        async def handle_connection(handler: Any, conn: connection.Connection) -> None:
            # One that is told to close while it waits to hand on what came after is cancelled there, and would stay
            # open for ever: a closing frame of a WebSocket with 64 KB behind it is enough.
            try:
                await stock_handle(handler, conn)
            finally:
                left = handler.transports.pop(conn, None)
                if left is not None and left.writer is not None:
                    left.writer.close()

        self._patches.replace(server.ConnectionHandler, "handle_connection", handle_connection)

    def done(self) -> None:
        """mitmproxy ends."""
        self._patches.undo()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def client_connected(self, client: connection.Client) -> None:
        """A connection is accepted; with ``error`` set mitmproxy closes it."""
        address = client.peername[0] if client.peername else ""
        self._connections[address] += 1
        if self._connections[address] > self._bounds.per_address and address not in self._bounds.exempt:
            logger.warning("%s has too many connections; one more is closed", address)
            client.error = "too many connections"
            return
        self._await_head(client.id)

    def client_disconnected(self, client: connection.Client) -> None:
        """It is closed."""
        address = client.peername[0] if client.peername else ""
        self._connections[address] -= 1
        if self._connections[address] <= 0:
            del self._connections[address]
        self._stop(client.id)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """A head is whole; its body may follow."""
        if edge.is_recorded(flow):
            return
        client_id = flow.client_conn.id
        self._stop(client_id)
        headers = flow.request.headers
        if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            self._arrived_bytes[client_id] = 0
            self._later(client_id, self._bounds.body_window_s, self._look_at_body)

    def request(self, flow: http.HTTPFlow) -> None:
        """The body is whole."""
        if not edge.is_recorded(flow):
            self._stop(flow.client_conn.id)

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer is whole: the next head may come."""
        if flow.websocket is None and flow.client_conn.connected and not flow.is_replay:
            self._await_head(flow.client_conn.id)

    def _await_head(self, client_id: str) -> None:
        self._stop(client_id)
        self._later(client_id, self._bounds.head_s, self._give_up)

    def _later(self, client_id: str, delay_s: float, what: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers[client_id] = loop.call_later(delay_s, what, client_id)

    def _stop(self, client_id: str) -> None:
        self._arrived_bytes.pop(client_id, None)
        if (timer := self._timers.pop(client_id, None)) is not None:
            timer.cancel()

    def _look_at_body(self, client_id: str) -> None:
        wanted = self._bounds.body_window_s * self._bounds.body_bytes_per_s
        if self._arrived_bytes.get(client_id, 0) < wanted and not _is_held_up(client_id):
            self._give_up(client_id)
            return
        self._arrived_bytes[client_id] = 0
        self._later(client_id, self._bounds.body_window_s, self._look_at_body)

    def _give_up(self, client_id: str) -> None:
        self._stop(client_id)
        handler = ctx.master.addons.get("proxyserver").connections.get(client_id)
        transport = handler and handler.transports.get(handler.client)
        if transport and transport.handler:
            transport.handler.cancel("too slow")


def _is_held_up(client_id: str) -> bool:
    """Whether bytes of the client wait for a server behind us."""
    handler = ctx.master.addons.get("proxyserver").connections.get(client_id)
    if handler is None:
        return False
    writers = [io.writer for conn, io in handler.transports.items() if conn is not handler.client]
    return any(
        writer is not None and writer.transport.get_write_buffer_size() > 0
        for writer in writers
        if hasattr(writer, "transport")
    )


def _judge(server: Any, event: events.DataReceived) -> Refusal | None:
    """Why what has arrived of a head is refused; None also while more is awaited."""
    buffer = server.buf
    while bytes(buffer._data[:2]) == b"\r\n":  # noqa: SLF001 - RFC 9112, 2.2: empty lines before a request mean nothing
        buffer._extract(2)  # noqa: SLF001
    data = buffer._data  # noqa: SLF001
    # What came before this event had no empty line in it.
    start = max(0, len(data) - len(event.data) - 3) if event.data else 0
    found = blank_line_regex.search(data, start)
    if found is None:
        return HEAD_TOO_LARGE if len(data) > MAX_HEAD_BYTES else None
    return refuse_head(bytes(data[: found.end()])) if found.end() <= MAX_HEAD_BYTES else HEAD_TOO_LARGE


def _answer(refusal: Refusal) -> bytes:
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Connection": "close",
        **headers_of(refusal),
    }
    response = http.Response.make(refusal.status, orjson.dumps(refusal.body()), headers)
    answer: bytes = http1.assemble_response(response)
    return answer


def _is_too_large(parts: list[bytes]) -> bool:
    """Whether a message that is not whole yet is too large already."""
    return len(parts) > MAX_FRAGMENTS or sum(map(len, parts)) > MAX_MESSAGE_BYTES


def _break_off(server: Any) -> Any:
    """Close the connection, and end what it was about."""
    yield commands.CloseConnection(server.conn)
    error = _events.RequestProtocolError(
        server.stream_id, "The client sent too much.", code=_events.ErrorCode.CLIENT_DISCONNECTED
    )
    yield ReceiveHttp(error)
    server.state = server.done
    _cut_of(server.conn)()


def _cut_of(client: connection.Client) -> Callable[[], None]:
    """What cuts the connection. mitmproxy closes it only when all that it has written is sent, which may be never."""
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    io = handler and handler.transports.get(client)
    if io and isinstance(io.writer, asyncio.StreamWriter):
        return io.writer.transport.abort
    return lambda: None
