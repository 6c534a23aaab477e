"""Asks ComfyUI servers over HTTP whether they are ready."""

import time
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import orjson

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_answer
from comfy_gateway.core.ports import Health
from comfy_gateway.core.requests.upstream import Upstream, front_door_headers

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""``/queue`` carries every waiting graph whole."""


class HttpProber:
    """Implements ``core.ports.Prober``. The session stays its owner's and is not closed here.

    ``path`` begins with a slash and follows the upstream's prefix; ``timeout_s`` bounds each probe.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        path: str,
        timeout_s: float,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._path = path if path.startswith("/") else f"/{path}"
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._monotonic = monotonic

    async def probe(self, upstream: Upstream, *, token: str | None = None) -> Health:
        """Healthy is a 2xx whose body is JSON: a proxy's own page in front of a dead server is not."""
        started = self._monotonic()
        try:
            heard = await bounded_answer(
                self._session,
                "GET",
                upstream.url(self._path),
                headers=front_door_headers(token),
                timeout_s=self._timeout_s,
                max_body_bytes=self._max_body_bytes,
            )
        except NoUsableAnswer as failure:
            return Health(False, None, self._monotonic() - started, str(failure))
        seconds, status = self._monotonic() - started, heard.status
        if not 200 <= status < 300:
            return Health(False, None, seconds, f"answered {status}", status)
        try:
            answer = orjson.loads(heard.body)
        except orjson.JSONDecodeError:
            return Health(False, None, seconds, "answered something that is no JSON", status)
        return Health(True, queue_remaining(answer), seconds, status=status)


def queue_remaining(answer: Any) -> int | None:
    """Prompts running and waiting, by the answer of ``/queue`` or ``/prompt``; None for any other."""
    if not isinstance(answer, dict):
        return None
    running, pending = answer.get("queue_running"), answer.get("queue_pending")
    if isinstance(running, list) and isinstance(pending, list):
        return len(running) + len(pending)
    info = answer.get("exec_info")
    remaining = info.get("queue_remaining") if isinstance(info, dict) else None
    if isinstance(remaining, int) and not isinstance(remaining, bool) and remaining >= 0:
        return remaining
    return None
