"""Gives up on servers that are late. mitmproxy has no timeout for a connect or for an answer.

A late answer is ended by telling mitmproxy that the server has closed the connection, and a late connect by
cancelling the task that opens it; both become mitmproxy's own error, which ``error_pages`` words as 504.
"""

import asyncio

from mitmproxy import ctx, http
from mitmproxy.proxy import events, server_hooks

from comfy_gateway.core.requests.refusals import UPSTREAM_LATE
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import Door
from comfy_gateway.hooks.error_pages import ErrorPages


class DeadlinesHook:
    """One timer per flow that waits for an answer, one per connection that is being opened."""

    name = "gateway-deadlines"

    def __init__(
        self,
        door: Door,
        pages: ErrorPages,
        *,
        connect_timeout_s: float,
        answer_timeout_s: float,
    ) -> None:
        self._door = door
        self._pages = pages
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """A connection is about to be opened."""
        loop = asyncio.get_running_loop()
        self._timers[data.server.id] = loop.call_later(self._connect_timeout_s, self._give_up_connect, data)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """It is open."""
        self._stop(data.server.id)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """It could not be opened."""
        self._stop(data.server.id)

    def request(self, flow: http.HTTPFlow) -> None:
        """The whole request is here; from now on the server is waited for."""
        if flow.live and flow.response is None and flow.metadata.get(edge.SOURCE) != Source.GATEWAY:
            loop = asyncio.get_running_loop()
            self._timers[flow.id] = loop.call_later(self._answer_timeout_s, self._give_up_answer, flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The answer has begun; how long it takes is its own affair."""
        self._stop(flow.id)

    def error(self, flow: http.HTTPFlow) -> None:
        """There will be no answer."""
        self._stop(flow.id)

    def done(self) -> None:
        """The gateway ends."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _stop(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _give_up_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._timers.pop(data.server.id, None)
        connection = ctx.master.addons.get("proxyserver").connections.get(data.client.id)
        opening = connection and connection.transports.get(data.server)
        if opening and opening.handler and opening.writer is None:
            opening.handler.cancel(UPSTREAM_LATE.type)

    def _give_up_answer(self, flow: http.HTTPFlow) -> None:
        self._timers.pop(flow.id, None)
        connection = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
        gateway = self._door.edge
        if gateway is None or connection is None or flow.response is not None:
            return
        if flow.server_conn not in connection.transports:
            return
        self._pages.late.add(flow.client_conn.id)
        closed = events.ConnectionClosed(flow.server_conn)
        gateway.tasks.start(connection.server_event(closed), name="give up a late server")
