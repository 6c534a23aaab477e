"""What names of input files mean, and which server has which content under which name.

Everything is answered from memory. The database is written behind by one task; ``flush`` waits for it a moment.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import UploadRows
from comfy_gateway.core.inputs.uploads import Content, Copy, Upload
from comfy_gateway.core.ports import Clock

logger = logging.getLogger(__name__)

MAX_UPLOADS: Final = 100_000
MAX_COPIES: Final = 200_000
MAX_VERSIONS: Final = 8
"""Meanings of one name that are kept: prompts that wait still mean the older ones."""
FLUSH_S: Final = 1.0
"""How long an upload waits for being written down."""
RETRY_S: Final = 1.0
CLOSING_S: Final = 2.0
MAX_ROWS: Final = 500
"""In one transaction, so that others get at the database between two."""

_UploadKey = tuple[str, FileName, datetime]
_CopyKey = tuple[str, FileName]


class InputBook:
    """Uploads and copies. Beyond the bounds the oldest are forgotten."""

    def __init__(
        self, rows: UploadRows, clock: Clock, *, max_uploads: int = MAX_UPLOADS, max_copies: int = MAX_COPIES
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._max_uploads = max_uploads
        self._max_copies = max_copies
        self._meanings: dict[str, dict[FileName, list[Upload]]] = {}
        self._in_order: dict[_UploadKey, Upload] = {}
        self._copies: dict[_CopyKey, Copy] = {}
        self._by_content: dict[str, dict[_CopyKey, None]] = {}
        self._by_place: dict[str, dict[FileName, None]] = {}
        self._unwritten_uploads: dict[_UploadKey, Upload] = {}
        self._unwritten_copies: dict[_CopyKey, Copy | None] = {}
        self._gone_uploads: dict[_UploadKey, Upload] = {}
        self._is_dirty = asyncio.Event()
        self._is_clean = asyncio.Event()
        self._is_clean.set()
        self._is_failing = False

    async def load(self) -> None:
        """Read what earlier lives have written. Raises StoreUnavailable."""
        for upload in await self._rows.load_uploads(self._max_uploads):
            self._remember(upload)
        for copy in await self._rows.load_copies(self._max_copies):
            self._remember_copy(copy)

    # -- what names mean

    def meaning(
        self, owner_keys: Iterable[str], file: FileName, *, at: datetime | None = None
    ) -> Upload | None:
        """What the first of these owners who uploaded such a name means by it, now or at that time.

        A name that was first uploaded later means its first content, since nothing else is known.
        """
        for owner_key in owner_keys:
            versions = self._meanings.get(owner_key, {}).get(file)
            if versions:
                before = [upload for upload in versions if at is None or upload.at <= at]
                return before[-1] if before else versions[0]
        return None

    def is_own(self, owner_keys: Collection[str], place: str, file: FileName) -> bool:
        """Whether what is there under this name is what these owners mean by it, and nobody else does."""
        copy = self._copies.get((place, file))
        if copy is None:
            return False
        meant_by = {
            owner_key
            for owner_key, names in self._meanings.items()
            if (versions := names.get(file)) and versions[-1].content == copy.content
        }
        return bool(meant_by) and meant_by.issubset(owner_keys)

    def uploads_of(self, owner_keys: Iterable[str]) -> dict[FileName, Upload]:
        """What these owners mean by all their names."""
        found: dict[FileName, Upload] = {}
        for owner_key in owner_keys:
            for file, versions in self._meanings.get(owner_key, {}).items():
                found.setdefault(file, versions[-1])
        return found

    def all_uploads(self) -> list[Upload]:
        """Everything, older meanings included, oldest first."""
        return list(self._in_order.values())

    def note_upload(
        self, owner_key: str, file: FileName, content: Content, *, is_listed: bool = True
    ) -> None:
        """From now on the owner means this content by this name."""
        at = self._clock.now()
        versions = self._meanings.get(owner_key, {}).get(file)
        if versions:
            last = versions[-1]
            if last.content == content and last.is_listed >= is_listed:
                return
            at = max(at, last.at + timedelta(microseconds=1))
        upload = Upload(owner_key, file, content, at, is_listed)
        self._remember(upload)
        self._gone_uploads.pop((owner_key, file, at), None)
        self._unwritten_uploads[owner_key, file, at] = upload
        self._mark_dirty()

    def forget_upload(self, upload: Upload) -> None:
        """Forget one meaning of a name."""
        key = (upload.owner_key, upload.file, upload.at)
        if self._in_order.pop(key, None) is None:
            return
        names = self._meanings[upload.owner_key]
        versions = names[upload.file]
        versions.remove(upload)
        if not versions:
            del names[upload.file]
            if not names:
                del self._meanings[upload.owner_key]
        self._unwritten_uploads.pop(key, None)
        self._gone_uploads[key] = upload
        self._mark_dirty()

    # -- what is where

    def copy_at(self, place: str, file: FileName) -> Copy | None:
        """What is known to be there under this name."""
        return self._copies.get((place, file))

    def copies_at(self, place: str) -> list[Copy]:
        """All that is known of a place."""
        return [self._copies[place, file] for file in self._by_place.get(place, ())]

    def copies_of(self, sha256: str) -> list[Copy]:
        """Where this content is, those known for longest first."""
        return [self._copies[key] for key in self._by_content.get(sha256, ())]

    def places(self) -> list[str]:
        """All places of which something is known."""
        return list(self._by_place)

    def note_copy(self, copy: Copy) -> None:
        """That content is there now."""
        key = (copy.place, copy.file)
        if self._copies.get(key) == copy:
            return
        self._remember_copy(copy)
        self._unwritten_copies[key] = copy
        self._mark_dirty()

    def forget_copy(self, place: str, file: FileName) -> None:
        """It is no longer there, or no longer certain."""
        if self._drop_copy((place, file)):
            self._mark_dirty()

    def forget_place(self, place: str) -> None:
        """The server is gone with all it had."""
        for file in tuple(self._by_place.get(place, ())):
            self.forget_copy(place, file)

    # -- the database

    async def flush(self) -> None:
        """Wait until all is written, but not long: a database that is away does not hold an upload back."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_clean.wait(), FLUSH_S)

    async def run(self) -> None:
        """Write what changes, for ever."""
        while True:
            await self._is_dirty.wait()
            try:
                await self.write()
            except StoreUnavailable as error:
                if not self._is_failing:
                    logger.warning("uploads cannot be written down yet: %s", error)
                self._is_failing = True
                await self._clock.sleep(RETRY_S)

    async def write(self) -> None:
        """Write all that is not written yet. Raises StoreUnavailable; what is left is written by a later call."""
        while self._is_dirty.is_set():
            uploads = _some(self._unwritten_uploads)
            copies = _some(self._unwritten_copies)
            gone = _some(self._gone_uploads)
            await self._rows.write_uploads(
                uploads=list(uploads.values()),
                gone_uploads=list(gone.values()),
                copies=[copy for copy in copies.values() if copy is not None],
                gone_copies=[key for key, copy in copies.items() if copy is None],
            )
            # What has changed again meanwhile is still unwritten.
            _take(self._unwritten_uploads, uploads)
            _take(self._unwritten_copies, copies)
            _take(self._gone_uploads, gone)
            self._is_failing = False
            if not (self._unwritten_uploads or self._unwritten_copies or self._gone_uploads):
                self._is_dirty.clear()
                self._is_clean.set()

    async def aclose(self) -> None:
        """Write what is left, within some seconds."""
        try:
            async with asyncio.timeout(CLOSING_S):
                await self.write()
        except (StoreUnavailable, TimeoutError):
            logger.warning("the last uploads could not be written down")

    def _mark_dirty(self) -> None:
        self._is_clean.clear()
        self._is_dirty.set()

    def _remember(self, upload: Upload) -> None:
        versions = self._meanings.setdefault(upload.owner_key, {}).setdefault(upload.file, [])
        versions.append(upload)
        self._in_order[upload.owner_key, upload.file, upload.at] = upload
        if len(versions) > MAX_VERSIONS:
            self.forget_upload(versions[0])
        if len(self._in_order) > self._max_uploads:
            self.forget_upload(next(iter(self._in_order.values())))

    def _remember_copy(self, copy: Copy) -> None:
        key = (copy.place, copy.file)
        self._drop_copy(key)
        self._copies[key] = copy
        self._by_content.setdefault(copy.content.sha256, {})[key] = None
        self._by_place.setdefault(copy.place, {})[copy.file] = None
        if len(self._copies) > self._max_copies:
            self._drop_copy(next(iter(self._copies)))
            self._mark_dirty()

    def _drop_copy(self, key: _CopyKey) -> bool:
        copy = self._copies.pop(key, None)
        if copy is None:
            return False
        _discard(self._by_content, copy.content.sha256, key)
        _discard(self._by_place, copy.place, copy.file)
        self._unwritten_copies[key] = None
        return True


def _discard[K, V](index: dict[K, dict[V, None]], name: K, entry: V) -> None:
    entries = index[name]
    del entries[entry]
    if not entries:
        del index[name]


def _some[K, V](rows: dict[K, V]) -> dict[K, V]:
    return {key: rows[key] for key in list(rows)[:MAX_ROWS]}


def _take[K, V](rows: dict[K, V], written: dict[K, V]) -> None:
    for key, row in written.items():
        if key in rows and rows[key] is row:
            del rows[key]
