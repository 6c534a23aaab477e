"""Input files: what carries them, and its pages."""

from dataclasses import dataclass

from comfy_gateway.adapters.agent_inputs import HttpAgentInputs
from comfy_gateway.adapters.comfyui_inputs import HttpInputServer
from comfy_gateway.adapters.input_store import DiskInputStore
from comfy_gateway.adapters.sql.upload_rows import SqlUploadRows
from comfy_gateway.core.inputs.ports import AgentPlace
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.inputs.inputs import Inputs
from comfy_gateway.service.inputs.lists import InputLists
from comfy_gateway.service.inputs.retention import InputRetention
from comfy_gateway.service.inputs.transfers import InputTransfers
from comfy_gateway.service.inputs.uploads import InputUploads
from comfy_gateway.service.vault.vault import Vault
from comfy_gateway.site.app import Part
from comfy_gateway.site.input_files import InputFiles
from comfy_gateway.site.servers import Servers
from comfy_gateway.site.uploads import Uploads
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.kept import KeptParts
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.servers import ServerParts


@dataclass(frozen=True)
class InputParts:
    """What a prompt's input files are asked of, and the pages of uploads and lists."""

    inputs: Inputs
    pages: tuple[Part, ...]


async def open_inputs(
    base: Base, servers: ServerParts, prompts: LedgerParts, kept: KeptParts, vault: Vault
) -> InputParts:
    """Opens the store of uploads and starts what keeps it."""
    limits, clock, tasks, routes = base.settings.limits, base.clock, base.tasks, servers.routes
    store = DiskInputStore(base.settings.state_dir / "inputs")
    await store.open()
    book = InputBook(SqlUploadRows(base.database), clock)
    await book.load()
    base.stack.push_async_callback(book.aclose)
    http = await base.http_for_files()
    server = HttpInputServer(http)

    def agent_of(backend: Backend) -> AgentPlace | None:
        place = servers.places.find(backend.id)
        return AgentPlace(place.agent_url, place.agent_token) if place is not None else None

    transfers = InputTransfers(
        book=book,
        store=store,
        server=server,
        agents=HttpAgentInputs(http),
        agent_of=agent_of,
        activity=prompts.activity,
        tasks=tasks,
    )
    inputs = Inputs(
        book=book,
        store=store,
        server=server,
        transfers=transfers,
        catalogues=servers.catalogues,
        files=kept.files,
        vault=vault,
        prompts=prompts.ledger,
        routes=routes,
        clock=clock,
        visibility=base.settings.access.visibility,
        spaces=base.spaces,
    )
    retention = InputRetention(
        inputs=inputs,
        book=book,
        store=store,
        routes=routes,
        clock=clock,
        most_bytes=limits.inputs_max_gb * 1024**3,
        most_age_s=limits.inputs_max_days * 86400.0,
    )
    tasks.start(book.run(), name="uploads")
    tasks.start(retention.run(), name="kept input files")
    patient = Servers(http, silence_s=limits.upstream_timeout_s, whole_s=limits.upstream_timeout_s)
    uploads = InputUploads(
        inputs=inputs,
        book=book,
        store=store,
        server=server,
        transfers=transfers,
        routes=routes,
        visibility=base.settings.access.visibility,
        spaces=base.spaces,
    )
    lists = InputLists(
        inputs=inputs, book=book, store=store, server=server, routes=routes, spaces=base.spaces
    )
    pages = (
        Uploads(uploads=uploads, store=store, most_bytes=limits.max_upload_mb * 1024**2),
        InputFiles(
            inputs=inputs,
            lists=lists,
            store=store,
            routes=routes,
            servers=patient,
            richer=servers.placement.richer,
        ),
    )
    return InputParts(inputs, pages)
