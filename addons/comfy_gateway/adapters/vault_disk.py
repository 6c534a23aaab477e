"""``core.vault.ports.VaultDisk`` over files of this machine or any fsspec URL, in daemon threads.

Daemon threads, because a disk in a network can hang, and a call into it must not hold a gateway that ends.
"""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import BinaryIO, Final, Protocol

from comfy_gateway.adapters.lane import Lane, LaneClosed
from comfy_gateway.core.errors import StorageUnavailable

CHUNK_BYTES: Final = 1024 * 1024
DEFAULT_WIDTH: Final = 8


class BlockingPart(Protocol):
    """A content on its way in. Raises OSError, or whatever the file system behind it raises."""

    def write(self, chunk: bytes) -> None:
        """Append."""
        ...

    def keep(self, modified_ns: int | None) -> None:
        """Make it durable and visible under its path."""
        ...

    def discard(self) -> None:
        """Throw it away."""
        ...


class BlockingFiles(Protocol):
    """A file system, called in threads. Raises OSError, or whatever the file system behind it raises."""

    def check(self) -> None:
        """Whether it can be written."""
        ...

    def create(self, path: str, expected_bytes: int) -> BlockingPart:
        """Begin a content."""
        ...

    def part_of(self, path: str, start: int, stop: int) -> bytes:
        """Some bytes of a content, fewer only at its end."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The whole content."""
        ...

    def remove(self, path: str) -> None:
        """Remove a content, if there is one."""
        ...

    def meaning_of(self, error: Exception) -> str:
        """What an error says, in words for the log: no path, no address, no credentials."""
        ...


class ThreadedDisk:
    """Runs a blocking file system in at most ``width`` threads."""

    def __init__(self, files: BlockingFiles, width: int = DEFAULT_WIDTH) -> None:
        self._files = files
        self._lane = Lane("vault", width)

    async def check(self) -> None:
        """See the port."""
        await self._run(self._files.check)

    async def create(self, path: str, expected_bytes: int | None = None) -> "ThreadedPart":
        """See the port."""
        begin = partial(self._files.create, path, expected_bytes or 0)
        return ThreadedPart(await self._run(begin), self._run)

    async def read(self, path: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """See the port."""
        while start < stop:
            until = min(start + CHUNK_BYTES, stop)
            chunk = await self._run(partial(self._files.part_of, path, start, until))
            if not chunk:
                raise StorageUnavailable("a kept file is shorter than it was")
            start += len(chunk)
            yield chunk

    def open(self, path: str) -> BinaryIO:
        """See the port."""
        try:
            return self._files.open(path)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StorageUnavailable(self._files.meaning_of(error)) from error

    async def remove(self, path: str) -> None:
        """See the port."""
        await self._run(lambda: self._files.remove(path))

    async def aclose(self) -> None:
        """See the port."""
        self._lane.close()

    async def _run[T](self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.wrap_future(self._lane.submit(work))
        except (LaneClosed, FileNotFoundError) as error:
            if isinstance(error, LaneClosed):
                raise StorageUnavailable("the vault is closed") from None
            raise
        except Exception as error:
            # Every file system has errors of its own kind: for its caller all of them mean the same.
            raise StorageUnavailable(self._files.meaning_of(error)) from error


class ThreadedPart:
    """See ``core.vault.ports.VaultPart``."""

    def __init__(self, part: BlockingPart, run: "_Run") -> None:
        self._part = part
        self._run = run
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        # A write whose task was cancelled may still be at work when its file is to be closed.
        self._one_at_a_time = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """See the port."""
        return self._size_bytes

    @property
    def sha256(self) -> str:
        """See the port."""
        return self._digest.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """See the port."""

        def work() -> None:
            with self._one_at_a_time:
                self._part.write(chunk)
                self._digest.update(chunk)

        await self._run(work)
        self._size_bytes += len(chunk)

    async def keep(self, *, modified_ns: int | None) -> None:
        """See the port."""

        def work() -> None:
            with self._one_at_a_time:
                self._part.keep(modified_ns)

        await self._run(work)

    async def discard(self) -> None:
        """See the port."""

        def work() -> None:
            with self._one_at_a_time:
                self._part.discard()

        try:
            await self._run(work)
        except (StorageUnavailable, FileNotFoundError):
            return


class _Run(Protocol):
    async def __call__[T](self, work: Callable[[], T]) -> T: ...
