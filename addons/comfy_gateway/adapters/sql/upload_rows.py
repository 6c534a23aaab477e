"""``core.inputs.ports.UploadRows`` over SQLAlchemy."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, Table, delete, select, tuple_

from comfy_gateway.adapters.sql.database import Database
from comfy_gateway.adapters.sql.tables import upload_copies, uploads
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.uploads import Content, Copy, Upload

_UPLOAD_KEY = (uploads.c.owner_key, uploads.c.folder, uploads.c.path, uploads.c.uploaded_at)
_COPY_KEY = (upload_copies.c.place, upload_copies.c.folder, upload_copies.c.path)


class SqlUploadRows:
    """Uploads and copies in the gateway's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_uploads(self, newest: int) -> Sequence[Upload]:
        """See the port."""
        query = select(uploads).order_by(uploads.c.uploaded_at.desc(), uploads.c.path).limit(newest)
        async with self._database.reading() as connection:
            found = [_upload_of(row) for row in await connection.execute(query)]
        return found[::-1]

    async def load_copies(self, most: int) -> Sequence[Copy]:
        """By place and name."""
        query = select(upload_copies).order_by(*_COPY_KEY).limit(most)
        async with self._database.reading() as connection:
            return [_copy_of(row) for row in await connection.execute(query)]

    async def write_uploads(
        self,
        *,
        uploads: Collection[Upload] = (),
        gone_uploads: Collection[Upload] = (),
        copies: Collection[Copy] = (),
        gone_copies: Collection[tuple[str, FileName]] = (),
    ) -> None:
        """See the port."""
        gone = [_upload_key(upload) for upload in gone_uploads]
        gone_keys = [(place, file.type, file.path) for place, file in gone_copies]
        async with self._database.transaction() as connection:
            if gone:
                await connection.execute(delete(_UPLOADS).where(tuple_(*_UPLOAD_KEY).in_(gone)))
            if gone_keys:
                await connection.execute(delete(upload_copies).where(tuple_(*_COPY_KEY).in_(gone_keys)))
            if uploads:
                await connection.execute(
                    self._upsert(_UPLOADS, len(_UPLOAD_KEY)), [_of_upload(upload) for upload in uploads]
                )
            if copies:
                await connection.execute(
                    self._upsert(upload_copies, len(_COPY_KEY)), [_of_copy(copy) for copy in copies]
                )

    def _upsert(self, table: Table, keys: int) -> Any:
        insert = self._database.insert(table)
        columns = list(table.columns)
        return insert.on_conflict_do_update(
            index_elements=columns[:keys],
            set_={column.name: insert.excluded[column.name] for column in columns[keys:]},
        )


_UPLOADS = uploads
"""The table, where an argument has its name."""


def _file_of(row: Row[Any]) -> FileName:
    subfolder, _, filename = row.path.rpartition("/")
    return FileName(filename, subfolder, row.folder)


def _upload_key(upload: Upload) -> tuple[Any, ...]:
    return (upload.owner_key, upload.file.type, upload.file.path, upload.at)


def _upload_of(row: Row[Any]) -> Upload:
    content = Content(row.sha256, row.size_bytes)
    return Upload(row.owner_key, _file_of(row), content, row.uploaded_at, row.is_listed)


def _of_upload(upload: Upload) -> dict[str, Any]:
    return {
        "owner_key": upload.owner_key,
        "folder": upload.file.type,
        "path": upload.file.path,
        "uploaded_at": upload.at,
        "sha256": upload.content.sha256,
        "size_bytes": upload.content.size_bytes,
        "is_listed": upload.is_listed,
    }


def _copy_of(row: Row[Any]) -> Copy:
    return Copy(row.place, _file_of(row), Content(row.sha256, row.size_bytes), row.is_carried, row.etag)


def _of_copy(copy: Copy) -> dict[str, Any]:
    return {
        "place": copy.place,
        "folder": copy.file.type,
        "path": copy.file.path,
        "sha256": copy.content.sha256,
        "size_bytes": copy.content.size_bytes,
        "is_carried": copy.is_carried,
        "etag": copy.etag,
    }
