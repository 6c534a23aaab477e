"""The gateway's own pages on loopback."""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.service.results.kept_entries import KeptEntries
from comfy_gateway.service.results.user_servers import UserServers
from comfy_gateway.service.vault.vault import Vault
from comfy_gateway.site.app import Part, build_app
from comfy_gateway.site.jobs import Jobs
from comfy_gateway.site.pictures import Pictures
from comfy_gateway.site.pod_view import PodView
from comfy_gateway.site.queue import QueuePages
from comfy_gateway.site.results import Results
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.servers import Servers
from comfy_gateway.site.socket import Socket
from comfy_gateway.site.status import Status
from comfy_gateway.site.vault_view import VaultView
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.kept import KeptParts
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.prompts import PromptParts
from comfy_gateway.wiring.servers import ServerParts


@dataclass(frozen=True)
class Site:
    """Where the hooks find the pages, and what they have to show."""

    address: Upstream
    key: str


async def pages_of(
    base: Base,
    servers: ServerParts,
    prompts: LedgerParts,
    kept: KeptParts,
    vault: Vault,
    flow: PromptParts,
    nudge: Callable[[UserId], None],
) -> list[Part]:
    """Sockets, results, files and status. ``nudge(user)`` has the user's pod looked at soon."""
    kept_view = VaultView(vault, Pictures())
    pod_view = PodView(
        http=await base.http_for_files(),
        files=kept.files,
        vault=vault,
        view=kept_view,
        nudge=nudge,
        clock=base.clock,
        whole_s=base.settings.limits.upstream_timeout_s,
    )
    ledger, files, visibility = prompts.ledger, kept.files, base.settings.access.visibility
    own, asked = UserServers(servers.routes, ledger), Servers(base.http)
    entries = KeptEntries(ledger, vault)
    results = Results(ledger=ledger, own=own, servers=asked, files=files, kept=entries, visibility=visibility)
    queue = QueuePages(
        ledger=ledger,
        own=own,
        servers=asked,
        comfy=servers.comfy,
        visibility=visibility,
        order_of=flow.turns.order_of,
    )
    jobs = Jobs(
        ledger=ledger,
        own=own,
        servers=asked,
        queue=queue,
        results=results,
        kept=entries,
        visibility=visibility,
    )
    return [
        Socket(flow.relay, files),
        results,
        queue,
        jobs,
        kept_view,
        pod_view,
        Status(pool=servers.pool, registry=base.meters.registry),
    ]


async def open_site(base: Base, parts: Iterable[Part]) -> Site:
    """Listens on a free port."""
    key = secrets.token_urlsafe(32)
    server = SiteServer(build_app(key=key, parts=list(parts), spaces=base.spaces))
    address = await server.start()
    base.stack.push_async_callback(server.aclose)
    return Site(address, key)
