"""The whole site on a real socket, as ``wiring`` builds it, before simulated servers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.core import site_contract
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.visibility import OPEN, Visibility
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.files.files import Files, Vault
from comfy_gateway.service.files.told_files import ToldFiles
from comfy_gateway.service.meters import Meters
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.results.kept_entries import KeptEntries, Openable
from comfy_gateway.service.results.user_servers import UserServers
from comfy_gateway.site.app import build_app
from comfy_gateway.site.history_pages import PAGE_BYTES
from comfy_gateway.site.jobs import Jobs
from comfy_gateway.site.queue import QueuePages
from comfy_gateway.site.relay import Relay
from comfy_gateway.site.results import MAX_LIST_BYTES, Results
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.servers import MAX_ANSWER_BYTES, Servers
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
    files: Files
    pool: DutyPool
    meters: Meters
    order: dict[str, float]
    """What servers order prompts by, where that is not their number."""
    headers: dict[str, str] = field(
        default_factory=lambda: {site_contract.KEY: KEY, site_contract.PEER: PEER}
    )
    """What the hooks send with every request."""


def duty(url: str, number: int = 0) -> Backend:
    """A shared server."""
    return Backend(f"duty-{number}", Source.DUTY, Upstream.parse(url))


@asynccontextmanager
async def site_before(
    *urls: str,
    silence_s: float = 5.0,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    max_list_bytes: int = MAX_LIST_BYTES,
    page_bytes: int = PAGE_BYTES,
    openable: Openable | None = None,
    vault: Vault | None = None,
    visibility: Visibility = OPEN,
) -> AsyncIterator[Site]:
    """A site whose duty servers are these; the first is home and everybody's."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        backends = [
            replace(duty(url, number), alias=f"server-{number}" if number else "")
            for number, url in enumerate(urls)
        ]
        pool = DutyPool(backends, HttpProber(http, "/queue", 2.0), clock)
        routes = Routes(pool.home, lambda _user: pool.home, pool.backends)
        ledger, meters = ledger_in_memory(clock), Meters()
        files = Files(routes=routes, told=ToldFiles(clock), vault=vault)
        own = UserServers(routes, ledger)
        servers = Servers(http, silence_s=silence_s, max_answer_bytes=max_answer_bytes)
        kept = KeptEntries(ledger, openable)
        results = Results(
            ledger=ledger,
            own=own,
            servers=servers,
            files=files,
            kept=kept,
            max_list_bytes=max_list_bytes,
            page_bytes=page_bytes,
            visibility=visibility,
        )
        comfy = HttpComfyServer(http, silence_s)
        order: dict[str, float] = {}
        queue = QueuePages(
            ledger=ledger,
            own=own,
            servers=servers,
            comfy=comfy,
            visibility=visibility,
            order_of=lambda record: order.get(record.prompt_id, record.number),
        )
        relay = Relay(routes=routes, ledger=ledger, keys=KEYS, clock=clock)
        stack.push_async_callback(relay.aclose)
        server = SiteServer(
            build_app(
                key=KEY,
                parts=[
                    Socket(relay, files),
                    results,
                    queue,
                    Jobs(ledger=ledger, own=own, servers=servers, queue=queue, results=results, kept=kept),
                    Status(pool=pool, registry=meters.registry),
                ],
            )
        )
        address = await server.start()
        stack.push_async_callback(server.aclose)
        yield Site(http, address.url(""), routes, ledger, files, pool, meters, order)
