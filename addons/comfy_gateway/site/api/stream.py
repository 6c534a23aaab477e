"""``/gateway/api/v1/stream``: what changes, as server-sent events, within a bounded number of bytes.

``first`` has everything, ``changes`` what is different since (``core.events.differences``): lists of ``{"id", …}`` with
ids ``session/<id>`` and ``duty/<id>``. A stream ends after ``LIFE_S``; a browser comes back by itself, and is asked
once more who it is.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from comfy_gateway.core.events.differences import Differences
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.service.life.operations import Operations
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.site.api.operation import Operation
from comfy_gateway.site.api.operators import for_operators
from comfy_gateway.site.api.said import duty_said, session_said
from comfy_gateway.site.refusals import answer

TICK_S: Final = 1.0
QUIET_TICKS: Final = 20
"""After so many ticks without news a comment shows that the connection lives."""
LIFE_S: Final = 15 * 60.0
MOST_STREAMS: Final = 50
EVENTS_PATH: Final = "/gateway/events"
"""The same stream under its older name."""
_TOO_MANY: Final = Refusal(503, "too_many_streams", "Too many streams are open.", retry_after_s=30)
_ASIDE: Final = frozenset({"id", "probe_s", "read_at"})
"""Changes of these alone are no news."""


class Stream:
    """Makes one picture a tick, however many listen."""

    def __init__(self, *, operations: Operations, pool: DutyPool, ledger: Ledger, clock: Clock) -> None:
        self._operations = operations
        self._pool = pool
        self._ledger = ledger
        self._clock = clock
        self._listeners = 0
        self._picture: Mapping[str, Mapping[str, Any]] = {}
        self._made_at_s: float | None = None

    def operations(self) -> list[Operation]:
        """One."""
        summary = "Changes of sessions and shared servers as they happen (server-sent events)."
        return [
            Operation("GET", "/stream", "stream", summary, for_operators(self.listen), None, refusals=(503,))
        ]

    def routes(self) -> list[web.RouteDef]:
        """Both names."""
        return [*(one.route() for one in self.operations()), web.get(EVENTS_PATH, for_operators(self.listen))]

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Until the listener goes, or is asked to come again."""
        if self._listeners >= MOST_STREAMS:
            return answer(_TOO_MANY)
        self._listeners += 1
        try:
            return await self._tell(request)
        finally:
            self._listeners -= 1

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        headers = {
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "Content-Type": "text/event-stream",
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        began_s = self._clock.monotonic()
        differences = Differences()
        await response.write(_event("first", differences.first(self._now(), began_s)))
        quiet_ticks = 0
        while (now_s := self._clock.monotonic()) - began_s < LIFE_S:
            changes = differences.next(self._now(), now_s)
            quiet_ticks = 0 if changes is not None else quiet_ticks + 1
            if changes is not None:
                await response.write(_event("changes", changes))
            elif quiet_ticks >= QUIET_TICKS:
                quiet_ticks = 0
                await response.write(b":\n\n")
            await self._clock.sleep(TICK_S)
        await response.write_eof()
        return response

    def _now(self) -> Mapping[str, Mapping[str, Any]]:
        now_s = self._clock.monotonic()
        if self._made_at_s is None or now_s - self._made_at_s >= TICK_S / 2:
            self._picture = self._look()
            self._made_at_s = now_s
        return self._picture

    def _look(self) -> Mapping[str, Mapping[str, Any]]:
        sessions = (session_said(view) for view in self._operations.all())
        found = {f"session/{one.id}": one.model_dump(mode="json", exclude=set(_ASIDE)) for one in sessions}
        servers = duty_said(self._pool, self._ledger)
        return found | {f"duty/{one.id}": one.model_dump(mode="json", exclude=set(_ASIDE)) for one in servers}


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
