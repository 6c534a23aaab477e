"""Bounds what mitmproxy keeps of a WebSocket: it would keep every frame for the life of the socket."""

from collections.abc import Callable

from mitmproxy import http

from comfy_gateway.hooks import edge


class FramesHook:
    """Keeps the last frame alone, or the last ``keep_bytes`` where people look."""

    name = "gateway-frames"

    def __init__(self, *, keep_bytes: Callable[[], int]) -> None:
        self._keep_bytes = keep_bytes
        self._kept_bytes: dict[str, int] = {}

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Called with each frame; the newest one must stay, for mitmproxy itself and later addons read it."""
        if edge.is_recorded(flow):
            return
        assert flow.websocket is not None
        messages = flow.websocket.messages
        keep_bytes = self._keep_bytes()
        if not keep_bytes:
            del messages[:-1]
            return
        kept = self._kept_bytes.get(flow.id, 0) + len(messages[-1].content)
        drop = 0
        while kept > keep_bytes and drop < len(messages) - 1:
            kept -= len(messages[drop].content)
            drop += 1
        del messages[:drop]
        self._kept_bytes[flow.id] = kept

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """The socket is closed."""
        self._kept_bytes.pop(flow.id, None)
