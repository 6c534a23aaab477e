"""One file's way from a pod into the vault."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Protocol

from comfy_gateway.core.errors import PodFilesUnavailable, StoreError
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.vault.paths import PodPaths
from comfy_gateway.core.vault.ports import (
    FileAnswer,
    Found,
    PodFiles,
    PodPlace,
    VaultDisk,
    VaultPart,
    VaultRows,
)
from comfy_gateway.core.vault.vault import StoredFile, modified_ns_of, size_of

logger = logging.getLogger(__name__)

WAITS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before the next try of a file that no try got on with; after as many of them others have their turn."""
NOTHING_LOOKS: Final = 3
"""So often a pod has to say that it has no such file: a proxy in front of it says the same of a pod that hangs."""
MOST_CHANGES: Final = 3
"""So often a copy begins anew because its file was written again meanwhile; then others have their turn."""
ROW_WAIT_S: Final = 0.5


class Outcome(Enum):
    """What came of a copy."""

    STORED = auto()
    SAME = auto()
    """The vault had this very content."""
    NOTHING = auto()
    """The pod has no such file."""
    TOO_LARGE = auto()
    """It would not fit into the vault if nothing else were in it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be copied, and why."""

    file: FileName
    prompt_id: str | None = None
    """The prompt whose output it is; None for what the sweep found."""
    by_agent: bool = False
    """Whether the agent's word on the content is wanted first."""


class Progress(Protocol):
    """Who wants to know how the copies from one pod get on."""

    def moved(self, size_bytes: int) -> None:
        """So much arrived, or the pod said something of use."""
        ...

    def failed(self, reason: str) -> None:
        """A try got nothing."""
        ...


class Copier:
    """Copies contents, a bounded number at a time."""

    def __init__(
        self,
        *,
        files: PodFiles,
        disk: VaultDisk,
        rows: VaultRows,
        clock: Clock,
        at_once: int = 8,
        max_file_bytes: int | None = None,
    ) -> None:
        self._files = files
        self._disk = disk
        self._rows = rows
        self._clock = clock
        self._slots = asyncio.Semaphore(at_once)
        self._max_file_bytes = max_file_bytes

    async def copy(
        self, place: PodPlace, wish: Wish, *, newest: StoredFile | None, paths: PodPaths, progress: Progress
    ) -> tuple[Outcome, StoredFile | None]:
        """Bring the file as it is now into the vault, unless ``newest``, the last content of that name, is the same.

        Broken connections are gone on with where they broke. Returns with STORED and SAME what the vault has.
        Raises PodFilesUnavailable when the pod gives nothing for some tries, and StorageUnavailable when the vault
        takes nothing. Nothing half done stays behind.
        """
        run = _Run(self._files, self._disk, self._clock, self._slots, self._max_file_bytes)
        try:
            outcome = await run.fetch(place, wish, newest, paths, progress)
            if outcome is Outcome.SAME:
                return outcome, newest
            if outcome is not None:
                return outcome, None
            return await self._stored(place, wish, newest, run)
        finally:
            await run.clear(paths)

    async def _stored(
        self, place: PodPlace, wish: Wish, newest: StoredFile | None, run: "_Run"
    ) -> tuple[Outcome, StoredFile]:
        part = run.part
        assert part is not None
        if newest is not None and newest.sha256 == part.sha256 and newest.size_bytes == part.size_bytes:
            # Written again with the same content, or told by another tag: the next question is answered at once.
            if run.etag is not None and run.etag != newest.etag:
                newest = replace(newest, etag=run.etag)
                await self._write_down(newest)
            return Outcome.SAME, newest
        await part.keep(modified_ns=modified_ns_of(run.etag))
        stored = StoredFile(
            user_key=place.user_key,
            pod_name=place.backend.id,
            alias=place.backend.alias,
            file=wish.file,
            version=1 if newest is None else newest.version + 1,
            path=run.kept(),
            sha256=part.sha256,
            size_bytes=part.size_bytes,
            etag=run.etag,
            stored_at=self._clock.now(),
            prompt_id=wish.prompt_id,
        )
        await self._write_down(stored)
        return Outcome.STORED, stored

    async def _write_down(self, stored: StoredFile) -> None:
        """The file is safe, and nobody finds it without its row: this is tried until it works."""
        while True:
            try:
                await self._rows.add(stored)
            except StoreError as error:
                logger.warning(
                    "the vault has a file of %s that is not written down yet: %s", stored.pod_name, error
                )
                await self._clock.sleep(ROW_WAIT_S)
            else:
                return


type _Source = Callable[..., AbstractAsyncContextManager[FileAnswer]]


class _WrittenAgain(Exception):
    """The content that is half here is on the pod no more."""


class _Run:
    """The tries of one copy, and the part that they fill."""

    def __init__(
        self,
        files: PodFiles,
        disk: VaultDisk,
        clock: Clock,
        slots: asyncio.Semaphore,
        max_file_bytes: int | None,
    ) -> None:
        self._files = files
        self._disk = disk
        self._clock = clock
        self._slots = slots
        self._max_file_bytes = max_file_bytes
        self._path: str | None = None
        self._is_kept = False
        self.part: VaultPart | None = None
        self.etag: str | None = None

    async def fetch(
        self, place: PodPlace, wish: Wish, newest: StoredFile | None, paths: PodPaths, progress: Progress
    ) -> Outcome | None:
        """None when the part has the whole content, else what there is instead."""
        failures, nothings, changes = 0, 0, 0
        while True:
            before = self._size_bytes
            source = self._source(wish, failures + nothings)
            try:
                async with self._slots:
                    outcome = await self._try(source, place, wish.file, newest, paths, progress)
            except _WrittenAgain:
                changes += 1
                if changes > MOST_CHANGES:
                    raise PodFilesUnavailable("the file is being written again and again") from None
                continue
            except PodFilesUnavailable as error:
                failures = 1 if self._size_bytes > before else failures + 1
                progress.failed(str(error))
                if failures > len(WAITS_S):
                    raise
                await self._clock.sleep(WAITS_S[failures - 1])
                continue
            if outcome is not Outcome.NOTHING:
                progress.moved(0)
                return outcome
            nothings += 1
            if nothings >= NOTHING_LOOKS:
                return outcome
            await self._clock.sleep(WAITS_S[nothings - 1])

    async def clear(self, paths: PodPaths) -> None:
        """Throw away what was not kept."""
        await self._drop()
        if self._path is not None:
            paths.give_back(self._path)

    def kept(self) -> str:
        """The part is a file now; returns its path, which stays taken."""
        path = self._path
        assert path is not None
        self._path = None
        self._is_kept = True
        return path

    @property
    def _size_bytes(self) -> int:
        return 0 if self.part is None else self.part.size_bytes

    def _source(self, wish: Wish, tries: int) -> _Source:
        """ComfyUI first, the agent where that got nowhere, by turns: one of them may have died."""
        prefers_agent = wish.by_agent != bool(tries % 2)
        if wish.file.type == "output" and prefers_agent:
            return self._files.from_agent
        return self._files.from_comfyui

    async def _try(
        self,
        source: _Source,
        place: PodPlace,
        file: FileName,
        newest: StoredFile | None,
        paths: PodPaths,
        progress: Progress,
    ) -> Outcome | None:
        offset = self._size_bytes if self.etag is not None else 0
        had = newest.etag if newest is not None and not offset else None
        async with source(place, file, offset=offset, etag=self.etag, had=had) as answer:
            if answer.found is Found.SAME:
                return Outcome.SAME
            if answer.found in {Found.NOTHING, Found.REFUSED}:
                return Outcome.NOTHING
            if answer.found is Found.CHANGED:
                await self._drop()
                raise _WrittenAgain
            total = answer.total_bytes if answer.total_bytes is not None else size_of(answer.etag)
            if self._is_too_large(total or 0):
                return Outcome.TOO_LARGE
            await self._take_position(answer, paths, file, total)
            assert self.part is not None
            async for chunk in answer.chunks:
                await self.part.write(chunk)
                progress.moved(len(chunk))
                if self._is_too_large(self.part.size_bytes):
                    return Outcome.TOO_LARGE
        if total is not None and self.part.size_bytes != total:
            size_bytes = self.part.size_bytes
            if size_bytes > total:
                await self._drop()
            raise PodFilesUnavailable(f"{size_bytes} bytes came of {total}")
        return None

    async def _take_position(
        self, answer: FileAnswer, paths: PodPaths, file: FileName, total: int | None
    ) -> None:
        """Go on with the part where the answer does, else begin another."""
        goes_on = self.part is not None and answer.offset and answer.offset == self.part.size_bytes
        if not goes_on or answer.etag != self.etag:
            await self._drop()
            if answer.offset:
                raise PodFilesUnavailable("another part came than was asked for")
            if self._path is None:
                self._path = paths.choose(file, self._clock.now())
            self.part = await self._disk.create(self._path, total)
        self.etag = answer.etag

    def _is_too_large(self, size_bytes: int) -> bool:
        return self._max_file_bytes is not None and size_bytes > self._max_file_bytes

    async def _drop(self) -> None:
        if self.part is not None and not self._is_kept:
            await self.part.discard()
            self.part = None
