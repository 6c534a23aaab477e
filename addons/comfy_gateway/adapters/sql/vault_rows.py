"""``core.vault.ports.VaultRows`` over SQLAlchemy."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import batched
from typing import Any, Final

from sqlalchemy import Row, delete, func, select

from comfy_gateway.adapters.sql.database import Database
from comfy_gateway.adapters.sql.tables import vault_files
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.vault import StoredFile, file_key

ASKED_AT_ONCE: Final = 500
"""Names in one query; SQLite takes 32 766 parameters, old ones 999."""

_columns = vault_files.c


class SqlVaultRows:
    """Kept files in the gateway's database; every call is one transaction, but for very many names."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, stored: StoredFile) -> None:
        """Write a row. One of the same name and version is replaced."""
        insert = self._database.insert(vault_files).values(_row_of(stored))
        keys = {"name_key", "version"}
        query = insert.on_conflict_do_update(
            index_elements=[_columns.name_key, _columns.version],
            set_={
                column.name: insert.excluded[column.name] for column in _columns if column.name not in keys
            },
        )
        async with self._database.transaction() as connection:
            await connection.execute(query)

    async def of_pod(self, pod_name: str) -> Sequence[StoredFile]:
        """All that was stored of this pod, by name, then by version."""
        query = select(vault_files).where(_columns.pod_name == pod_name)
        async with self._database.transaction() as connection:
            rows = await connection.execute(query.order_by(_columns.name_key, _columns.version))
            return [_stored_of(row) for row in rows]

    async def of_names(self, names: Collection[tuple[str, FileName]]) -> Sequence[StoredFile]:
        """All versions stored under these names (alias and the pod's own name), by name, then by version."""
        keys = sorted({file_key(alias, file) for alias, file in names})
        found: list[StoredFile] = []
        for some in batched(keys, ASKED_AT_ONCE):
            query = select(vault_files).where(_columns.name_key.in_(some))
            async with self._database.transaction() as connection:
                rows = await connection.execute(query.order_by(_columns.name_key, _columns.version))
                found += [_stored_of(row) for row in rows]
        return found

    async def owners(self) -> Mapping[str, str]:
        """``UserId.key`` by alias, of every alias under which something is stored."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(_columns.alias, _columns.user_key).distinct())
            return {row.alias: row.user_key for row in rows}

    async def total_bytes(self) -> int:
        """Size of everything that is stored."""
        async with self._database.transaction() as connection:
            return int(await connection.scalar(select(func.sum(_columns.size_bytes))) or 0)

    async def oldest(self, limit: int, *, before: datetime | None = None) -> Sequence[StoredFile]:
        """The contents that were stored first, oldest first; only those from before that time where one is given."""
        query = (
            select(vault_files).order_by(_columns.stored_at, _columns.name_key, _columns.version).limit(limit)
        )
        if before is not None:
            query = query.where(_columns.stored_at < before)
        async with self._database.transaction() as connection:
            return [_stored_of(row) for row in await connection.execute(query)]

    async def remove(self, stored: StoredFile) -> None:
        """Remove the row."""
        query = delete(vault_files).where(
            _columns.name_key == file_key(stored.alias, stored.file), _columns.version == stored.version
        )
        async with self._database.transaction() as connection:
            await connection.execute(query)


def _row_of(stored: StoredFile) -> dict[str, Any]:
    return {
        "name_key": file_key(stored.alias, stored.file),
        "version": stored.version,
        "user_key": stored.user_key,
        "pod_name": stored.pod_name,
        "alias": stored.alias,
        "type": stored.file.type,
        "subfolder": stored.file.subfolder,
        "filename": stored.file.filename,
        "path": stored.path,
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "etag": stored.etag,
        "stored_at": stored.stored_at,
        "prompt_id": stored.prompt_id,
    }


def _stored_of(row: Row[Any]) -> StoredFile:
    return StoredFile(
        user_key=row.user_key,
        pod_name=row.pod_name,
        alias=row.alias,
        file=FileName(row.filename, row.subfolder, row.type),
        version=row.version,
        path=row.path,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        etag=row.etag,
        stored_at=row.stored_at,
        prompt_id=row.prompt_id,
    )
