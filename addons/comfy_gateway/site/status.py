"""``/gateway/healthz``, ``/gateway/readyz`` and ``/gateway/metrics``."""

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from comfy_gateway.service.requests.duty_pool import DutyPool


class Status:
    """What a load balancer and Prometheus ask."""

    def __init__(self, *, pool: DutyPool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._registry = registry

    def routes(self) -> list[web.RouteDef]:
        """The probes' addresses."""
        return [
            web.get("/gateway/healthz", self.healthz),
            web.get("/gateway/readyz", self.readyz),
            web.get("/gateway/metrics", self.metrics),
        ]

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 as long as the event loop and the site answer."""
        return _json(200, {"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 when at least one duty server answered its last probe, else 503.

        Servers are told by their place in the settings: an id would confirm who guesses an address.
        """
        health = {
            f"duty-{position}": found.is_healthy
            for position, backend in enumerate(self._pool.backends)
            if (found := self._pool.last_health.get(backend.id)) is not None
        }
        is_ready = any(health.values())
        return _json(
            200 if is_ready else 503,
            {"status": "ready" if is_ready else "no duty server", "duty": health},
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus text."""
        return web.Response(
            body=generate_latest(self._registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


def _json(status: int, body: object) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
