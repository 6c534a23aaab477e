"""What is kept when its server is gone: files in the vault, entries of the history."""

import asyncio
from dataclasses import dataclass

from comfy_gateway.adapters.pod_files import HttpPodFiles
from comfy_gateway.adapters.sql import SqlVaultRows
from comfy_gateway.adapters.vault_disk import ThreadedDisk
from comfy_gateway.core.errors import StorageUnavailable
from comfy_gateway.service.files.file_owners import FileOwners
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.files.told_files import ToldFiles
from comfy_gateway.service.life.pod_places import PromptServers
from comfy_gateway.service.results.archive import Archive
from comfy_gateway.service.vault.retention import VaultRetention
from comfy_gateway.service.vault.vault import Vault
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.from_settings import vault_files
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.servers import ServerParts


async def open_vault(base: Base, servers: ServerParts) -> Vault:
    """The kept files. Raises StorageUnavailable for an address that cannot be used at all."""
    limits = base.settings.vault
    try:
        disk = ThreadedDisk(await asyncio.to_thread(vault_files, base.settings))
    except ValueError as fault:
        raise StorageUnavailable(f"VAULT_URL {fault}") from None
    rows = SqlVaultRows(base.database)
    max_bytes = int(limits.max_gb * 1e9) or None
    vault = Vault(
        pods=servers.places,
        files=HttpPodFiles(await base.http_for_files()),
        disk=disk,
        rows=rows,
        clock=base.clock,
        hold_s=limits.deadline_s,
        max_file_bytes=max_bytes,
    )
    base.stack.push_async_callback(vault.aclose)
    await vault.start()
    retention = VaultRetention(
        disk=disk,
        rows=rows,
        clock=base.clock,
        stats=vault.stats,
        max_bytes=max_bytes,
        max_age_s=limits.max_days * 86400 or None,
    )
    base.tasks.start(retention.run(), name="retention of kept files")
    servers.sessions.watch(vault.session_moved)
    base.meters.watch_values("comfy_gateway_vault", "The vault's", vault.stats)
    return vault


@dataclass(frozen=True)
class KeptParts:
    """Whose file is whose, and the entries of prompts whose server is gone."""

    files: Files
    archive: Archive


def build_kept(base: Base, servers: ServerParts, prompts: LedgerParts, vault: Vault) -> KeptParts:
    """Nothing runs yet."""
    ledger = prompts.ledger
    owners = FileOwners(ledger, base.clock) if base.settings.access.visibility.hides_others else None
    files = Files(routes=servers.routes, told=ToldFiles(base.clock), vault=vault, owners=owners)
    archive = Archive(
        entries=ledger,
        comfy=servers.comfy,
        servers=PromptServers(servers.routes, servers.places),
        clock=base.clock,
        named=vault.note,
    )
    base.stack.push_async_callback(archive.aclose)
    vault.wait_for(archive)
    ledger.watch(archive.prompt_changed)
    files.watch(archive.file_named)
    files.watch(vault.note)
    return KeptParts(files, archive)
