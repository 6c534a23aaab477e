"""Input files that the gateway keeps, each under the sha256 of its content.

A content is written to a part beside the others and appears under its checksum by a rename when all of it is on the
disk, so what is there is whole. Files are 0600 in a folder of 0700. A file's time is that of its last use.
"""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from comfy_gateway.core.errors import StorageUnavailable
from comfy_gateway.core.inputs.uploads import Content, Kept

RESERVE_BYTES: Final = 256 * 1024 * 1024
"""Left free on the disk: the database is usually on it, and has to go on."""
WRITE_BYTES: Final = 1024 * 1024
"""Gathered before a thread is asked to write."""

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_PART: Final = ".part"


class DiskInputStore:
    """Implements ``core.inputs.ports.InputStore`` in one folder."""

    def __init__(self, root: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._root = root
        self._reserve_bytes = reserve_bytes
        self._kept: dict[str, Kept] = {}

    async def open(self) -> None:
        """Make the folder, read what is in it, and remove parts of an earlier life. Raises StorageUnavailable.

        Nothing else may be called before.
        """
        self._kept = await _in_thread(self._read_folder)

    def find(self, sha256: str) -> Content | None:
        """See the port."""
        kept = self._kept.get(sha256)
        return None if kept is None else kept.content

    def path(self, sha256: str) -> Path:
        """See the port."""
        return self._root / sha256

    def all(self) -> list[Kept]:
        """See the port."""
        return sorted(self._kept.values(), key=lambda kept: kept.used_at)

    def part(self, size_bytes: int | None = None) -> "Part":
        """See the port."""
        return Part(self._root, self._reserve_bytes, size_bytes, self._add)

    async def used(self, sha256: str) -> None:
        """See the port."""
        kept = self._kept.get(sha256)
        if kept is not None and (used_at := await _in_thread(lambda: self._touch(sha256))) is not None:
            self._kept[sha256] = Kept(kept.content, used_at)

    async def remove(self, sha256: str) -> None:
        """See the port."""
        self._kept.pop(sha256, None)
        await _in_thread(lambda: self.path(sha256).unlink(missing_ok=True))

    def _add(self, kept: Kept) -> None:
        self._kept[kept.content.sha256] = kept

    def _touch(self, sha256: str) -> float | None:
        try:
            os.utime(self.path(sha256))
            return self.path(sha256).stat().st_mtime
        except FileNotFoundError:
            return None

    def _read_folder(self) -> dict[str, Kept]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
        found = {}
        for path in self._root.iterdir():
            if path.name.endswith(_PART):
                path.unlink(missing_ok=True)
            elif _NAME.fullmatch(path.name):
                seen = path.stat()
                found[path.name] = Kept(Content(path.name, seen.st_size), seen.st_mtime)
        return found


class Part:
    """Implements ``core.inputs.ports.InputPart``."""

    def __init__(
        self, root: Path, reserve_bytes: int, size_bytes: int | None, add: Callable[[Kept], None]
    ) -> None:
        self._root = root
        self._reserve_bytes = reserve_bytes
        self._expected_bytes = size_bytes
        self._add = add
        self._path = root / f"{secrets.token_hex(16)}{_PART}"
        self._digest = hashlib.sha256()
        self._gathered = bytearray()
        self._file: int | None = None
        self.size_bytes = 0

    async def __aenter__(self) -> Self:
        await _in_thread(self._create)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not in a thread: where this task is cancelled nothing may be awaited, and it is little.
        self._close()
        self._path.unlink(missing_ok=True)

    async def write(self, chunk: bytes) -> None:
        """See the port."""
        self._gathered += chunk
        self.size_bytes += len(chunk)
        if len(self._gathered) >= WRITE_BYTES:
            await _in_thread(self._write_gathered)

    async def finish(self) -> Content:
        """See the port."""
        content, used_at = await _in_thread(self._finish)
        self._add(Kept(content, used_at))
        return content

    def _create(self) -> None:
        self._keep_reserve(self._expected_bytes or 0)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def _write_gathered(self) -> None:
        # Before the bytes are taken, so that they are still here when this fails.
        self._keep_reserve(len(self._gathered))
        assert self._file is not None
        data, self._gathered = self._gathered, bytearray()
        self._digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _finish(self) -> tuple[Content, float]:
        self._write_gathered()
        assert self._file is not None
        os.fsync(self._file)
        used_at = os.fstat(self._file).st_mtime
        self._close()
        content = Content(self._digest.hexdigest(), self.size_bytes)
        self._path.replace(self._root / content.sha256)
        folder = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return content, used_at

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _keep_reserve(self, more_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._root).free
        if free_bytes - more_bytes < self._reserve_bytes:
            raise StorageUnavailable("the gateway's disk is full")


async def _in_thread[T](work: Callable[[], T]) -> T:
    """Wait for the end of the work even when cancelled: else it would go on in a file that is closed already."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        running.exception()  # or it would be reported as never looked at
        raise
    except OSError as error:
        raise StorageUnavailable(f"the gateway's disk cannot be used: {error.strerror}") from error
