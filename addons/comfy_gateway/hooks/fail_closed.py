"""mitmproxy only logs an exception in a hook and forwards the flow all the same. Ours end in a 503."""

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy import http

from comfy_gateway.core.requests.refusals import BROKEN
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.answers import answer_here

logger = logging.getLogger(__name__)


def _refuse(flow: http.HTTPFlow, hook: str) -> None:
    logger.error("hook %s failed; the request is refused", hook, exc_info=True)  # noqa: LOG014 - its callers except
    if flow.response is None:
        # A flow that streams its request must not have a response set: mitmproxy would crash on it.
        flow.request.stream = False
        flow.metadata[edge.SETTLED] = True
        answer_here(flow, BROKEN)


def fail_closed(
    hook: Callable[[Any, http.HTTPFlow], None],
) -> Callable[[Any, http.HTTPFlow], None]:
    """Wrap a synchronous hook that decides about a flow. It is not called for a recorded one."""

    @functools.wraps(hook)
    def guarded(self: Any, flow: http.HTTPFlow) -> None:
        if edge.is_recorded(flow):
            return
        try:
            hook(self, flow)
        except Exception:  # noqa: BLE001 - whatever it was, the request must not go on to a default upstream
            _refuse(flow, hook.__qualname__)

    return guarded


def fail_closed_async(
    hook: Callable[[Any, http.HTTPFlow], Awaitable[None]],
) -> Callable[[Any, http.HTTPFlow], Awaitable[None]]:
    """The same for an asynchronous hook."""

    @functools.wraps(hook)
    async def guarded(self: Any, flow: http.HTTPFlow) -> None:
        if edge.is_recorded(flow):
            return
        try:
            await hook(self, flow)
        except Exception:  # noqa: BLE001 - as above
            _refuse(flow, hook.__qualname__)

    return guarded
