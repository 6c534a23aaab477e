"""The whole site on a real socket, as ``wiring`` builds it, before simulated servers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.core import site_contract
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.upstream import Backend, Source, Upstream
from comfy_gateway.core.users import IdKind, UserId
from comfy_gateway.service.duty_pool import DutyPool
from comfy_gateway.service.ledger import Ledger
from comfy_gateway.service.meters import Meters
from comfy_gateway.service.routes import Routes
from comfy_gateway.service.told_files import ToldFiles
from comfy_gateway.site.app import build_app
from comfy_gateway.site.relay import Relay
from comfy_gateway.site.results import Results
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.socket import Socket
from comfy_gateway.site.status import Status
from tests.fakes.ledger import ledger_in_memory

ALICE = UserId(IdKind.NAMED, "alice")
KEY = "the-key"
KEYS = Keys(b"k" * 32)
PEER = "10.1.2.3"


@dataclass
class Site:
    """A running site and the parts that stand behind it."""

    http: aiohttp.ClientSession
    url: str
    routes: Routes
    ledger: Ledger
    told: ToldFiles
    pool: DutyPool
    meters: Meters
    headers: dict[str, str] = field(
        default_factory=lambda: {site_contract.KEY: KEY, site_contract.PEER: PEER}
    )
    """What the hooks send with every request."""


def duty(url: str, number: int = 0) -> Backend:
    """A shared server."""
    return Backend(f"duty-{number}", Source.DUTY, Upstream.parse(url))


@asynccontextmanager
async def site_before(*urls: str, timeout_s: float = 10.0) -> AsyncIterator[Site]:
    """A site whose duty servers are these; the first is home and everybody's."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        backends = [duty(url, number) for number, url in enumerate(urls)]
        pool = DutyPool(backends, HttpProber(http, "/queue", 2.0), clock)
        routes = Routes(pool.home, lambda _user: pool.home, pool.backends)
        ledger, told, meters = ledger_in_memory(clock), ToldFiles(clock), Meters()
        relay = Relay(routes=routes, ledger=ledger, keys=KEYS, clock=clock)
        stack.push_async_callback(relay.aclose)
        server = SiteServer(
            build_app(
                key=KEY,
                parts=[
                    Socket(relay),
                    Results(ledger=ledger, routes=routes, told=told, http=http, timeout_s=timeout_s),
                    Status(pool=pool, registry=meters.registry),
                ],
            )
        )
        address = await server.start()
        stack.push_async_callback(server.aclose)
        yield Site(http, address.url(""), routes, ledger, told, pool, meters)
