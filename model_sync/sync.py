"""All files of a run: what is there, whether the rest fits on the disk, and then several transfers at once."""

import asyncio
import shutil
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from yarl import URL

from model_sync import addresses, base_folder, hugging_face
from model_sync.base_folder import Finding
from model_sync.claims import Claims
from model_sync.errors import DiskFull, LostClaim, SourceError, UnsafePath
from model_sync.manifest import Entry
from model_sync.options import Pace
from model_sync.progress import Report
from model_sync.sources import Source
from model_sync.threads import to_end
from model_sync.tokens import Tokens
from model_sync.transfer import Missing, Transfer


@dataclass
class Outcome:
    """By path. `missing` with the reasons of each mirror."""

    fetched: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing_optional: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Busy:
    """Another process is fetching this file."""


class Sync:
    """One run over one base folder, which exists and is resolved."""

    def __init__(
        self,
        base: Path,
        sources: Callable[[URL], Source],
        transfer: Transfer,
        *,
        tokens: Tokens,
        pace: Pace,
        report: Report,
    ) -> None:
        self._base = base
        self._source = sources
        self._transfer = transfer
        self._tokens = tokens
        self._pace = pace
        self._report = report
        self._claims = Claims(base)
        self._queue: deque[Entry] = deque()
        self._waiting: set[str] = set()
        self._outcome = Outcome()

    async def run(self, entries: tuple[Entry, ...]) -> Outcome:
        """Raises DiskFull before the first byte when what is missing does not fit, or when the disk fills up."""
        full: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._report.keep_telling(), name="model_sync telling")
                await self._run(entries)
                telling.cancel()
        except* DiskFull as group:
            # The first is as good as any: they are about one disk.
            full = group
            while isinstance(full, BaseExceptionGroup):
                full = full.exceptions[0]
        if full is not None:
            raise full
        return self._outcome

    async def _run(self, entries: tuple[Entry, ...]) -> None:
        entries = await self._expanded(entries)
        await self._check_space(entries)
        self._queue.extend(entries)
        async with asyncio.TaskGroup() as workers:
            for number in range(max(1, min(self._pace.parallel, len(entries)))):
                workers.create_task(self._work(), name=f"model_sync transfer {number}")

    async def _expanded(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """With the files of a repository in the place of its entry."""
        files: list[Entry] = []
        for entry in entries:
            if entry.repository is None:
                files.append(entry)
                continue
            try:
                files.extend(await files_of_repository(entry, self._tokens))
            except SourceError as error:
                self._miss(entry, (str(error),))
        return tuple(files)

    async def _check_space(self, entries: tuple[Entry, ...]) -> None:
        gate = asyncio.Semaphore(max(1, self._pace.parallel))

        async def measured(entry: Entry) -> int:
            async with gate:
                return await self._needed_bytes(entry)

        needed = sum(await asyncio.gather(*(measured(entry) for entry in entries)))
        free = await to_end(lambda: shutil.disk_usage(self._base).free)
        whole = self._report.whole
        self._report.event(
            "plan", files=len(entries), total_bytes=whole.total_bytes, needed_bytes=needed, free_bytes=free
        )
        if needed > free:
            raise DiskFull(f"{needed} bytes are missing below {self._base}, {free} are free")

    async def _needed_bytes(self, entry: Entry) -> int:
        """What must still come. Tells the report what is there."""
        finding = await to_end(lambda: base_folder.look(self._base, entry, read=False))
        if finding.state in {"present", "unknown"}:
            self._report.came(entry.path, finding.size_bytes)
            return 0
        size = entry.size_bytes
        if size is None:
            size = await self._size_elsewhere(entry)
        self._report.expect(entry.path, size)
        if finding.state != "partial":
            return size or 0
        self._report.came(entry.path, finding.size_bytes)
        return max(0, (size or 0) - finding.size_bytes)

    async def _size_elsewhere(self, entry: Entry) -> int | None:
        """From the first mirror that tells, else the rounded one of the manifest."""
        for text in entry.urls:
            try:
                url = addresses.read(text)
                if hugging_face.is_hub(url):
                    return (await hugging_face.published(url, self._tokens)).size_bytes
                async with self._source(url).open(url, offset=0, only_if=None) as answer:
                    if answer.total_bytes is not None:
                        return answer.total_bytes
            except SourceError:
                continue
        return entry.about_bytes

    async def _work(self) -> None:
        while self._queue:
            entry = self._queue.popleft()
            try:
                outcome = await self._one(entry)
            except (UnsafePath, OSError) as error:
                outcome = Missing((str(error),))
            if isinstance(outcome, Busy):
                if entry.path not in self._waiting:
                    self._waiting.add(entry.path)
                    self._report.event("waiting", path=entry.path)
                self._queue.append(entry)
                await asyncio.sleep(self._pace.look_again_s)
            elif isinstance(outcome, Missing):
                self._miss(entry, outcome.reasons)

    async def _one(self, entry: Entry) -> Missing | Busy | None:
        """None: the file is in place."""
        if await self._is_present(entry):
            return None
        async with self._claims.claim(entry.path) as held:
            if held is None:
                return Busy()
            # Between the look and the claim another process may have finished it.
            if await self._is_present(entry):
                return None
            self._report.event("started", path=entry.path)
            try:
                outcome = await self._transfer.fetch(entry, held)
            except LostClaim:
                return Busy()
        if isinstance(outcome, Missing):
            return outcome
        self._report.came(entry.path, outcome.size_bytes)
        self._report.event("fetched", path=entry.path, size_bytes=outcome.size_bytes, sha256=outcome.sha256)
        self._outcome.fetched.append(entry.path)
        return None

    async def _is_present(self, entry: Entry) -> bool:
        finding = await looked(self._base, entry)
        if finding.state != "present":
            return False
        self._report.came(entry.path, finding.size_bytes)
        self._report.expect(entry.path, finding.size_bytes)
        self._report.event("present", path=entry.path, size_bytes=finding.size_bytes)
        self._outcome.present.append(entry.path)
        return True

    def _miss(self, entry: Entry, reasons: tuple[str, ...]) -> None:
        self._report.event("missing", path=entry.path, optional=entry.optional, reasons=list(reasons))
        (self._outcome.missing_optional if entry.optional else self._outcome.missing)[entry.path] = reasons


class _Stopped(Exception):
    """Nobody waits for the result any more."""


async def looked(base: Path, entry: Entry, *, again: bool = False) -> Finding:
    """`base_folder.look`, reading; may be cancelled, and then stops reading."""
    stopped = threading.Event()

    def on_read(_count: int) -> None:
        if stopped.is_set():
            raise _Stopped

    try:
        return await asyncio.to_thread(base_folder.look, base, entry, read=True, again=again, on_read=on_read)
    finally:
        stopped.set()


async def files_of_repository(entry: Entry, tokens: Tokens) -> list[Entry]:
    """One entry for each file of the repository that `entry` stands for. Raises Passing."""
    assert entry.repository is not None
    return [
        replace(
            entry,
            name=f"{entry.name}: {path}",
            path=f"{entry.path}/{path}",
            urls=(str(said.url),),
            sha256=said.sha256,
            size_bytes=said.size_bytes,
            about_bytes=None,
            repository=None,
        )
        for path, said in await hugging_face.files_of(entry.repository, tokens)
    ]
