"""A file on its way: `<target>.part`, with `<target>.part.json` beside it telling where its bytes came from.

After a kill the bytes that were written are still there. After a loss of power only those up to `synced_bytes` are
certain. With a published checksum both are used and the checksum decides; without one only the certain bytes are, and
only if the same address still serves the same version (`validator`).
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Self

from model_sync import atomic
from model_sync.errors import DiskFull, is_full
from model_sync.threads import to_end

SYNC_EVERY_BYTES = 32 << 20
READ_BYTES = 4 << 20


@dataclass
class Origin:
    """`source` names an address without telling what may be secret in it.

    `validator` is an ETag or a date, as the server gave it.
    """

    source: str = ""
    validator: str | None = None
    total_bytes: int | None = None
    synced_bytes: int = 0


class PartFile:
    """Opened by `open`, and closed by `close` whatever happens. The disk is touched in threads only.

    Raises DiskFull where the disk is; every other OSError passes through.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.origin = Origin()
        self.size_bytes = 0
        # Whether some of the bytes were there before the present mirror was asked.
        self.inherited = False
        self._target = target
        self._note = target.with_name(f"{target.name}.part.json")
        self._file: FileIO | None = None
        self._digest = hashlib.sha256()
        self._unsynced_bytes = 0

    @classmethod
    async def open(cls, target: Path, *, trust_unsynced: bool) -> Self:
        """What an earlier run left, or an empty file. `trust_unsynced`: a checksum will tell in the end."""
        part = cls(target)
        await _on_disk(lambda: part._open(trust_unsynced=trust_unsynced))
        try:
            await part._read_again()
        except BaseException:
            part.close()
            raise
        part.inherited = part.size_bytes > 0
        return part

    def _open(self, *, trust_unsynced: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._file = FileIO(os.open(self.path, flags, 0o666), "r+")
        try:
            self.origin = Origin(**json.loads(self._note.read_text(encoding="utf-8")))
            usable = os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError, TypeError):
            # Bytes of which nobody knows whence they came.
            self.origin = Origin()
            usable = 0
        if not trust_unsynced:
            usable = min(usable, self.origin.synced_bytes)
        self._file.truncate(usable)

    async def _read_again(self) -> None:
        """Takes the bytes that are there into the checksum. In short steps, so that it can be interrupted."""
        while await _on_disk(self._read_block):
            pass

    def _read_block(self) -> int:
        block = self._opened.read(READ_BYTES)
        self._digest.update(block)
        self.size_bytes += len(block)
        return len(block)

    @property
    def _opened(self) -> FileIO:
        assert self._file is not None
        return self._file

    async def begin(self, source: str, *, validator: str | None, total_bytes: int | None) -> None:
        """Starts anew, with nothing in the file."""
        await self.restart()
        self.origin = Origin(source, validator, total_bytes)
        await _on_disk(self._write_note)

    async def restart(self) -> None:
        await _on_disk(self._empty)
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self.inherited = False
        self._unsynced_bytes = 0

    def _empty(self) -> None:
        self.origin.synced_bytes = 0
        self._write_note()
        self._opened.seek(0)
        self._opened.truncate(0)

    async def append(self, block: bytes | bytearray) -> None:
        await _on_disk(lambda: self._append(block))

    def _append(self, block: bytes | bytearray) -> None:
        rest = memoryview(block)
        while rest:
            written = self._opened.write(rest)
            self._digest.update(rest[:written])
            self.size_bytes += written
            self._unsynced_bytes += written
            rest = rest[written:]
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self._sync()

    async def sync(self) -> None:
        """On the disk, and noted so, when this returns."""
        await _on_disk(self._sync)

    def _sync(self) -> None:
        os.fsync(self._opened.fileno())
        self._unsynced_bytes = 0
        self.origin.synced_bytes = self.size_bytes
        self._write_note()

    def _write_note(self) -> None:
        atomic.write_json(self._note, asdict(self.origin), durable=False)

    @property
    def sha256(self) -> str:
        """Of all bytes that are in the file."""
        return self._digest.hexdigest()

    async def put_in_place(self) -> os.stat_result:
        """The target is this file from now on, or as before if anything fails. The part is closed and gone."""
        await self.sync()
        return await _on_disk(self._put_in_place)

    def _put_in_place(self) -> os.stat_result:
        self.close()
        self.path.replace(self._target)
        atomic.sync_folder(self._target.parent)
        self._note.unlink(missing_ok=True)
        return self._target.stat()

    async def discard(self) -> None:
        """Nothing of it stays."""
        await _on_disk(self._discard)

    def _discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    async def leave(self) -> None:
        """For the next run: all that came is on the disk. Nothing to do once the file is in place."""
        try:
            if self._unsynced_bytes and self._file is not None:
                await self.sync()
        finally:
            await to_end(self.close)

    def close(self) -> None:
        """May be called again."""
        if self._file is not None:
            self._file.close()
            self._file = None


async def _on_disk[T](call: Callable[[], T]) -> T:
    try:
        return await to_end(call)
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{error.strerror}: {error.filename or 'while writing'}") from error
        raise
