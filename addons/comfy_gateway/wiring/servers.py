"""Which servers there are, who is on which, and what each can run."""

import logging
from dataclasses import dataclass

from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.adapters.sql import SqlPlainNames, SqlSessionStore
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.life.life import backend_of
from comfy_gateway.service.life.pod_places import PodPlaces
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.prompts.catalogues import Catalogues
from comfy_gateway.service.prompts.placement import Placement
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.from_settings import duty_backends

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerParts:
    """The map of who is where."""

    prober: HttpProber
    pool: DutyPool
    routes: Routes
    store: SqlSessionStore
    sessions: Sessions
    places: PodPlaces
    comfy: HttpComfyServer
    catalogues: Catalogues
    placement: Placement


async def open_servers(base: Base) -> ServerParts:
    """Settles what the shared servers are called, before the ledger is read. Raises StoreUnavailable."""
    servers = duty_backends(base.settings)
    for server in servers:
        logger.info("duty server %s is %s", server.id, server.upstream.url("/"))
    return _build(base, plain_id=await SqlPlainNames(base.database).settle([server.id for server in servers]))


def _build(base: Base, *, plain_id: str) -> ServerParts:
    settings, clock, keys = base.settings, base.clock, base.keys
    prober = HttpProber(base.http, settings.health.path, settings.health.timeout_s)
    pool = DutyPool(duty_backends(settings, plain_id=plain_id), prober, clock)
    routes = Routes(pool.home, pool.choose, pool.backends)
    pool.on_move(routes.duty_changed)
    store = SqlSessionStore(base.database)
    addresses = settings.pod_addresses
    sessions = Sessions(
        store=store,
        routes=routes,
        clock=clock,
        backend_of=lambda pod: backend_of(pod, addresses, keys),
    )
    comfy = HttpComfyServer(base.http, settings.health.timeout_s)

    def all_servers() -> tuple[Backend, ...]:
        return (*pool.backends, *routes.privates().values())

    catalogues = Catalogues(comfy=comfy, servers=all_servers, clock=clock, tasks=base.tasks)
    placement = Placement(routes=routes, catalogues=catalogues, clock=clock)
    sessions.watch(placement.session_moved)
    base.meters.watch(sessions)
    return ServerParts(
        prober=prober,
        pool=pool,
        routes=routes,
        store=store,
        sessions=sessions,
        places=PodPlaces(sessions, addresses, keys),
        comfy=comfy,
        catalogues=catalogues,
        placement=placement,
    )


def run_servers(base: Base, servers: ServerParts) -> None:
    """Start what looks at servers for ever."""
    base.tasks.start(servers.pool.run(), name="duty pool")
    base.tasks.start(servers.catalogues.run(), name="catalogues")
