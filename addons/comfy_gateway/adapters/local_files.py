"""Kept files on a disk of this machine: for the gateway's user alone, and whole or not there at all."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

PARTS: Final = ".parts"
"""Folder of contents on their way in, below the root: on its file system, so that a rename is enough."""
OLD_S: Final = 3600.0
"""A part that nobody wrote for so long is of a gateway that was killed."""
SYNC_BYTES: Final = 32 * 1024 * 1024
"""Written out every so often, so that the last call, which the gateway's end may wait for, is short."""
RESERVE_BYTES: Final = 512 * 1024 * 1024
"""Left free on the disk: the database is usually on it, and has to go on."""


class DiskFull(OSError):
    """Less than the reserve is free."""


class LocalFiles:
    """``BlockingFiles`` in a folder; folders are made 0700 and files 0600."""

    def __init__(self, root: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._root = root
        self._reserve_bytes = reserve_bytes

    def check(self) -> None:
        """Make the folders, write and remove a file, and remove parts of earlier lives."""
        _make_folders(self._root, self._parts())
        self._root.chmod(0o700)
        part = self.create("check", 0)
        try:
            part.write(b"0")
            now_s = part.written_s()
        finally:
            part.discard()
        for left in self._parts().iterdir():
            with contextlib.suppress(FileNotFoundError):
                if now_s - left.stat().st_mtime > OLD_S:
                    left.unlink()

    def create(self, path: str, expected_bytes: int) -> "LocalPart":
        """A file in the folder of parts. Raises DiskFull at once where it will not fit."""
        parts = self._parts()
        _make_folders(self._root, parts)
        self._keep_reserve(expected_bytes)
        part = parts / f"{secrets.token_hex(16)}.part"
        return LocalPart(part, self._root / path, self._root, self._keep_reserve)

    def part_of(self, path: str, start: int, stop: int) -> bytes:
        """By one read at an offset."""
        opened = os.open(self._root / path, os.O_RDONLY)
        try:
            return os.pread(opened, stop - start, start)
        finally:
            os.close(opened)

    def open(self, path: str) -> BinaryIO:
        """A plain file."""
        return (self._root / path).open("rb")

    def remove(self, path: str) -> None:
        """The file, and the folders above it that are empty then."""
        place = self._root / path
        place.unlink(missing_ok=True)
        for folder in place.parents:
            if folder == self._root or not folder.is_relative_to(self._root):
                return
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # it has other files
                return

    def meaning_of(self, error: Exception) -> str:
        """The system's own words."""
        if isinstance(error, DiskFull):
            return str(error)
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return type(error).__name__

    def _parts(self) -> Path:
        return self._root / PARTS

    def _keep_reserve(self, wanted_bytes: int = 0) -> None:
        stats = os.statvfs(self._root)
        if stats.f_bavail * stats.f_frsize - wanted_bytes < self._reserve_bytes:
            raise DiskFull("the disk is full: the rest of it is left to the database")


class LocalPart:
    """One file in the folder of parts."""

    def __init__(self, part: Path, place: Path, root: Path, keep_reserve: Callable[[], None]) -> None:
        self._part = part
        self._place = place
        self._root = root
        self._keep_reserve = keep_reserve
        self._unsynced_bytes = 0
        self._opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, chunk: bytes) -> None:
        """Append; every now and then down to the disk."""
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._opened, view) :]
        self._unsynced_bytes += len(chunk)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._keep_reserve()
            _sync(self._opened)
            self._unsynced_bytes = 0

    def written_s(self) -> float:
        """When this was last written, by the clock of the disk: seconds since the epoch."""
        return os.fstat(self._opened).st_mtime

    def keep(self, modified_ns: int | None) -> None:
        """Down to the disk, then under its name by a rename, then that name down to the disk."""
        if modified_ns is not None:
            with contextlib.suppress(OSError, OverflowError):  # a time that this disk does not take
                os.utime(self._opened, ns=(modified_ns, modified_ns))
        os.fsync(self._opened)
        _make_folders(self._root, self._place.parent)
        self._part.replace(self._place)
        self._close()
        folder = os.open(self._place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Nothing of it stays."""
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._opened >= 0:
            os.close(self._opened)
            self._opened = -1


def _make_folders(root: Path, folder: Path) -> None:
    """All folders down to this one; ``mkdir(parents=True)`` would give those between the usual mode."""
    if folder == root:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    if not folder.is_dir():
        _make_folders(root, folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _sync(opened: int) -> None:
    getattr(os, "fdatasync", os.fsync)(opened)  # macOS has no fdatasync
