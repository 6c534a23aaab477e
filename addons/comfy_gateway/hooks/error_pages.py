"""mitmproxy's own error answers, as JSON and without an internal address.

A response that a hook sets in ``error`` has no effect, and the stock page is HTML that names the upstream. So the
two functions that build it are replaced for as long as the gateway runs. They are private to mitmproxy: the version
is checked, and tests hold the result to real sockets.
"""

import logging
from typing import Any

import orjson
from mitmproxy import http, version
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers.http import _events, _http1, _http2

from comfy_gateway.core.requests.refusals import (
    MALFORMED,
    UPSTREAM_LATE,
    UPSTREAM_UNREACHABLE,
    Refusal,
    headers_of,
)
from comfy_gateway.hooks.patches import TESTED_VERSION, Patches

logger = logging.getLogger(__name__)


class ErrorPages:
    """Installs and removes the replacement. ``late`` holds ids of client connections whose upstream was given up."""

    def __init__(self) -> None:
        self.late: set[str] = set()
        self._patches = Patches()

    def install(self) -> None:
        """Replace the builders. Raises RuntimeError for a mitmproxy that this was not tested with."""
        if version.VERSION != TESTED_VERSION:
            raise RuntimeError(f"the gateway needs mitmproxy {TESTED_VERSION}, this is {version.VERSION}")
        late = self.late
        stock_send = _http1.Http1Server.send

        def send(server: _http1.Http1Server, event: _events.HttpEvent) -> Any:
            if isinstance(event, _events.ResponseProtocolError) and server.conn.id in late:
                late.discard(server.conn.id)
                event.message = UPSTREAM_LATE.type
            return stock_send(server, event)

        self._patches.replace(_http1.Http1Server, "send", send)
        self._patches.replace(_http1, "make_error_response", make_error_response)
        self._patches.replace(
            _http2,
            "format_error",
            lambda status, message: _body(_refusal(status, message)),
        )

    def uninstall(self) -> None:
        """Put mitmproxy's own back."""
        self._patches.undo()


def make_error_response(status_code: int, message: str = "") -> bytes:
    """The whole HTTP/1 answer. ``message`` is mitmproxy's own and is not shown: it can hold addresses and bytes."""
    refusal = _refusal(status_code, message)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Connection": "close",
        **headers_of(refusal),
    }
    answer: bytes = http1.assemble_response(http.Response.make(refusal.status, _body(refusal), headers))
    return answer


def _body(refusal: Refusal) -> bytes:
    return orjson.dumps(refusal.body())


def _refusal(status_code: int, message: str) -> Refusal:
    text = message.lower()
    if status_code < 500:
        return Refusal(status_code, MALFORMED.type, MALFORMED.message)
    is_late = UPSTREAM_LATE.type in text or "timed out" in text
    return UPSTREAM_LATE if is_late else UPSTREAM_UNREACHABLE
