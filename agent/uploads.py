"""Input files that arrive in parts, one after another, and appear under their name only when they are whole.

The bytes of an unfinished upload are in `.agent-uploads/<id>.part` below the input folder, so that the end is a rename
within one file system. The part file's size is the only state: an upload goes on after a crash of either side.
"""

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.folders import Folder

PARTS_FOLDER = ".agent-uploads"
SHA256 = re.compile(r"[0-9a-f]{64}")
SPARE_BYTES = 64 * 1024 * 1024
WRITE_BYTES = 1024 * 1024


class UploadRefused(Exception):
    """The message is for the asker.

    status          of the HTTP answer
    received_bytes  from where to go on, None where that does not help
    """

    def __init__(self, status: int, message: str, received_bytes: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.received_bytes = received_bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """What is meant to arrive. The same three things are the same upload."""

    path: PurePosixPath
    total_bytes: int
    sha256: str

    @property
    def id(self) -> str:
        told = f"{self.total_bytes}:{self.sha256}:{self.path}"
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Progress:
    received_bytes: int
    is_complete: bool
    is_new: bool = False
    """Whether this very request completed it."""


class Uploads:
    """All uploads into one folder; one request at a time for each."""

    def __init__(self, root: Path, *, max_part_bytes: int, keep_s: float) -> None:
        self._folder = Folder(root)
        self._parts = root / PARTS_FOLDER
        self._max_part_bytes = max_part_bytes
        self._keep_s = keep_s
        self._busy: set[str] = set()

    async def progress(self, upload: Upload) -> Progress:
        """How far it is. Raises BadPath and OSError."""
        return await asyncio.to_thread(self._progress, upload)

    async def receive(
        self, upload: Upload, offset: int, chunks: AsyncIterator[bytes], *, replace: bool
    ) -> Progress:
        """Append a part. What came before a break is kept.

        Raises UploadRefused, BadPath, OSError, and whatever the chunks raise.
        """
        if upload.id in self._busy:
            raise UploadRefused(409, "another request is sending this file")
        self._busy.add(upload.id)
        try:
            before = await asyncio.to_thread(self._begin, upload, offset, replace=replace)
            if before.is_complete:
                return before
            received = await self._append(upload, offset, chunks)
            if received < upload.total_bytes:
                return Progress(received, is_complete=False)
            return await _to_its_end(self._finish, upload, replace=replace)
        finally:
            self._busy.discard(upload.id)

    def clean(self) -> int:
        """Remove what nobody went on with; returns how many. Raises OSError."""
        removed = 0
        for part in self._parts.glob("*.part"):
            if part.stem not in self._busy and time.time() - part.stat().st_mtime > self._keep_s:
                part.unlink(missing_ok=True)
                removed += 1
        return removed

    def _part(self, upload: Upload) -> Path:
        return self._parts / f"{upload.id}.part"

    def _progress(self, upload: Upload) -> Progress:
        part = self._part(upload)
        if part.is_file():
            return Progress(part.stat().st_size, is_complete=False)
        place = self._folder.existing(upload.path)
        if place and place.stat().st_size == upload.total_bytes and _sha256(place) == upload.sha256:
            return Progress(upload.total_bytes, is_complete=True)
        return Progress(0, is_complete=False)

    def _begin(self, upload: Upload, offset: int, *, replace: bool) -> Progress:
        progress = self._progress(upload)
        if progress.is_complete:
            return progress
        if not replace and self._folder.existing(upload.path):
            raise UploadRefused(412, "another file has this name")
        if offset != progress.received_bytes:
            raise UploadRefused(409, "go on at received_bytes", progress.received_bytes)
        self._folder.new(upload.path)
        self._parts.mkdir(mode=0o700, exist_ok=True)
        free = shutil.disk_usage(self._parts).free
        if upload.total_bytes - progress.received_bytes + SPARE_BYTES > free:
            raise UploadRefused(507, f"only {free} bytes are free")
        self._part(upload).touch()
        return progress

    async def _append(self, upload: Upload, offset: int, chunks: AsyncIterator[bytes]) -> int:
        part = self._part(upload)
        received, kept = offset, bytearray()
        try:
            async for chunk in chunks:
                received += len(chunk)
                self._check_size(upload, offset, received)
                kept += chunk
                if len(kept) >= WRITE_BYTES:
                    data, kept = kept, bytearray()
                    await _to_its_end(_write, part, data)
        except UploadRefused:
            await _to_its_end(os.truncate, part, offset)
            raise
        except BaseException:
            # Also when this request is cancelled. Not in a thread: nothing may be awaited then, and it is little.
            _write(part, kept)
            raise
        await _to_its_end(_write, part, kept)
        return received

    def _check_size(self, upload: Upload, offset: int, received: int) -> None:
        if received > upload.total_bytes:
            raise UploadRefused(400, "there are more bytes than total says", offset)
        if received - offset > self._max_part_bytes:
            raise UploadRefused(413, f"a part has at most {self._max_part_bytes} bytes", offset)

    def _finish(self, upload: Upload, *, replace: bool) -> Progress:
        part = self._part(upload)
        if _sha256(part) != upload.sha256:
            part.unlink()
            raise UploadRefused(422, "the bytes do not have this sha256: begin again", 0)
        place = self._folder.new(upload.path)
        if not replace and place.exists():
            raise UploadRefused(412, "another file has this name", upload.total_bytes)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(place)
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return Progress(upload.total_bytes, is_complete=True, is_new=True)


async def _to_its_end[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread, and wait for its end even when cancelled: else it would write beside the next request."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _write(part: Path, data: bytes | bytearray) -> None:
    with part.open("ab") as file:
        file.write(data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
