"""A file on its way: `<target>.part`, with `<target>.part.json` beside it telling where its bytes came from.

After a kill the bytes that were written are still there. After a loss of power only those up to `synced_bytes` are
certain. With a published checksum both are used and the checksum decides; without one only the certain bytes are, and
only if the same address still serves the same version (`validator`).

A writer can lose its claim without noticing: a volume hangs for a minute, and another pod goes on with the file. What
the first one still does then must not reach the file of the second:

- a part whose last writer may still live is copied, so that the two never write into one inode;
- before it writes its note, and when it puts the file in place, a writer compares the inode behind the name with its
  own. The final name is given only to an inode that is the writer's own: the part is first moved to a name that nobody
  else knows, and looked at there.
"""

import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Self

from model_sync import atomic
from model_sync.errors import DiskFull, LostClaim, is_full
from model_sync.threads import to_end

SYNC_EVERY_BYTES = 32 << 20
READ_BYTES = 4 << 20

_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass
class Origin:
    """`source` names an address without telling what may be secret in it.

    `validator` is an ETag or a date, as the server gave it. `writer` is the process that has the file open, "" when the
    last one closed it in order.
    """

    source: str = ""
    validator: str | None = None
    total_bytes: int | None = None
    synced_bytes: int = 0
    writer: str = ""


def _here() -> str:
    """This machine since its start, as far as process numbers mean the same."""
    marks = [socket.gethostname()]
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(file)
        try:
            marks.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
        except OSError:  # not Linux
            marks.append("")
    return " ".join(marks)


def _myself() -> str:
    return f"{_here()} {os.getpid()}"


def _is_gone(writer: str) -> bool:
    """Whether that process certainly writes no more. Of another machine nobody can say."""
    if not writer:
        return True
    place, _, number = writer.rpartition(" ")
    if place != _here() or not number.isdecimal():
        return False
    if int(number) == os.getpid():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class PartFile:
    """Opened by `open`, and left by `leave` whatever happens. The disk is touched in threads only.

    Raises DiskFull where the disk is, LostClaim where another writer has taken over; every other OSError passes.
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
        try:
            usable_bytes = await _on_disk(part._look)
            if not trust_unsynced:
                usable_bytes = min(usable_bytes, part.origin.synced_bytes)
            if not _is_gone(part.origin.writer):
                usable_bytes = await part._copy(usable_bytes)
            await _on_disk(lambda: part._open(usable_bytes))
            while await _on_disk(part._read_block):
                pass
        except BaseException:
            part.close()
            raise
        part.inherited = part.size_bytes > 0
        return part

    def _look(self) -> int:
        """How many bytes are there of which the note tells whence they came."""
        self._tidy()
        try:
            self.origin = Origin(**json.loads(self._note.read_text(encoding="utf-8")))
            return self.path.lstat().st_size
        except (OSError, ValueError, TypeError):
            self.origin = Origin()
            return 0

    def _tidy(self) -> None:
        """After processes that were killed at a bad moment. What was about to get its final name is a part again."""
        name = re.escape(self._target.name)
        ours = re.compile(rf"\.{name}\.(?:part\.json\.\d+\.[0-9a-f]{{8}}|[0-9a-f]{{16}}\.(?:done|copy))")
        for file in [file for file in self._target.parent.iterdir() if ours.fullmatch(file.name)]:
            if file.suffix == ".done" and not self.path.exists():
                file.rename(self.path)
            else:
                file.unlink(missing_ok=True)

    async def _copy(self, usable_bytes: int) -> int:
        """Puts a copy in the place of the part; its old writer keeps a file without a name.

        Returns how many bytes there are then: none when there is no room for both.
        """
        copy_path = self._aside("copy")
        try:
            with (
                FileIO(os.open(self.path, _OPEN), "r") as old,
                FileIO(os.open(copy_path, _OPEN, 0o666), "r+") as copy,
            ):
                left = usable_bytes
                # In short steps, so that it can be interrupted.
                while left and (count := await _on_disk(partial(_copy_block, old, copy, left))):
                    left -= count
                await _on_disk(lambda: os.fsync(copy.fileno()))
        except DiskFull:
            copy_path.unlink()
            self.path.unlink()
            return 0
        await _on_disk(lambda: copy_path.replace(self.path))
        return usable_bytes - left

    def _aside(self, kind: str) -> Path:
        return self._target.with_name(f".{self._target.name}.{secrets.token_hex(8)}.{kind}")

    def _open(self, usable_bytes: int) -> None:
        self._file = FileIO(os.open(self.path, _OPEN, 0o666), "r+")
        self._file.truncate(usable_bytes)
        self.origin.writer = _myself()
        self._write_note()

    def _read_block(self) -> int:
        """Takes the bytes that are there into the checksum. In short steps, as above."""
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
        self.origin = Origin(source, validator, total_bytes)
        await self.restart()

    async def restart(self) -> None:
        await _on_disk(self._empty)
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self.inherited = False
        self._unsynced_bytes = 0

    def _empty(self) -> None:
        self.origin.synced_bytes = 0
        self.origin.writer = _myself()
        # First the note: bytes must never be taken for certain that are gone.
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

    def _sync(self) -> None:
        os.fsync(self._opened.fileno())
        self._unsynced_bytes = 0
        self.origin.synced_bytes = self.size_bytes
        self._write_note()

    def _write_note(self) -> None:
        self._be_mine(self.path)
        atomic.write_json(self._note, asdict(self.origin), durable=False)

    def _be_mine(self, path: Path) -> None:
        """Raises LostClaim when `path` is not the file that is open here."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            raise self._lost() from None
        mine = os.fstat(self._opened.fileno())
        if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            raise self._lost()

    def _lost(self) -> LostClaim:
        return LostClaim(f"another process took over {self._target.name}")

    @property
    def sha256(self) -> str:
        """Of all bytes that are in the file."""
        return self._digest.hexdigest()

    async def put_in_place(self) -> os.stat_result:
        """The target is this file from now on, or as before if anything fails. The part is closed and gone."""
        return await _on_disk(self._put_in_place)

    def _put_in_place(self) -> os.stat_result:
        self._sync()
        done = self._aside("done")
        try:
            self.path.rename(done)
        except FileNotFoundError:
            raise self._lost() from None
        try:
            self._be_mine(done)
        except LostClaim:
            # It was the other's, who will miss it.
            done.rename(self.path)
            raise
        self.close()
        try:
            done.replace(self._target)
        except OSError as error:
            # A folder has its name. What came is kept for whoever clears that up.
            done.rename(self.path)
            raise error from None
        atomic.sync_folder(self._target.parent)
        self._note.unlink(missing_ok=True)
        return self._target.stat()

    async def leave(self) -> None:
        """For the next run: all that came is on the disk. Nothing to do once the file is in place."""
        try:
            if self._file is not None:
                self.origin.writer = ""
                await _on_disk(self._sync)
        except LostClaim:
            # Neither the part nor the note is ours any more.
            return
        finally:
            await to_end(self.close)

    def close(self) -> None:
        """May be called again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _copy_block(old: FileIO, copy: FileIO, most_bytes: int) -> int:
    block = old.read(min(READ_BYTES, most_bytes))
    rest = memoryview(block)
    while rest:
        rest = rest[copy.write(rest) :]
    return len(block)


async def _on_disk[T](call: Callable[[], T]) -> T:
    try:
        return await to_end(call)
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{error.strerror}: {error.filename or 'while writing'}") from error
        raise
