"""Secrets of ours in requests: on the wire to the next server, and in no flow.

mitmproxy shows what a flow holds and writes it into files, also of one that is under way. So a flow has a blot where
the secret is to stand, and the secret is put in when the head is written to the server.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from mitmproxy import http
from mitmproxy.proxy.layers.http import _events, _http1

from comfy_gateway.hooks.header_fields import rewrite
from comfy_gateway.hooks.patches import Patches

BLOT: Final = "[redacted]"

_hidden: WeakKeyDictionary[http.Request, Mapping[str, str]] = WeakKeyDictionary()


def hide(request: http.Request, secrets: Mapping[str, str]) -> dict[str, str]:
    """Have these headers sent, and no others of an earlier call; returns what the flow is to show in their place."""
    _hidden[request] = secrets
    return dict.fromkeys(secrets, BLOT)


def hidden(request: http.Request) -> Mapping[str, str]:
    """What is sent in place of blots, by name."""
    return _hidden.get(request, {})


class SecretHeaders:
    """Puts them in. The place is private to mitmproxy: see ``error_pages`` on the version."""

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """From now on."""
        stock_send = _http1.Http1Client.send

        def send(client: Any, event: _events.HttpEvent) -> Any:
            if isinstance(event, _events.RequestHeaders) and (secrets := _hidden.get(event.request)):
                sent = copy.copy(event.request)
                sent.data = copy.copy(sent.data)
                sent.data.headers = http.Headers(sent.data.headers.fields)
                rewrite(sent.headers, put=secrets)
                event = _events.RequestHeaders(event.stream_id, sent, end_stream=event.end_stream)
            return stock_send(client, event)

        self._patches.replace(_http1.Http1Client, "send", send)

    def uninstall(self) -> None:
        """No longer."""
        self._patches.undo()
