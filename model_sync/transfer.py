"""One file: from its mirrors, in their order, into its place.

    Fetched    the file is in place, its checksum that of the manifest, else the publisher's
    Missing    no mirror gave it; the reasons, one a mirror. What came stays in the part for the next run.

A file reaches its final name only by a rename, after all its bytes were counted, summed and synced.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from model_sync import addresses, bookkeeping, hugging_face, names
from model_sync.bandwidth import Bandwidth, SlowWatch
from model_sync.claims import Claim
from model_sync.errors import Doubtful, Passing, SourceError, TooSlow, Useless
from model_sync.manifest import Entry
from model_sync.options import Pace
from model_sync.part_file import PartFile
from model_sync.patience import Patience
from model_sync.progress import Report
from model_sync.sources import Answer, Source
from model_sync.threads import to_end
from model_sync.tokens import Tokens

# Written at once: small against the memory, large against the cost of a thread.
WRITE_BYTES = 1 << 20
# Contradictions of one mirror in a row before its bytes are thrown away, and before it is given up.
DOUBTS_TO_START_ANEW = 2
DOUBTS_TO_GIVE_UP = 4


@dataclass(frozen=True)
class Wanted:
    """What the file must be. None is not known."""

    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class Fetched:
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Missing:
    reasons: tuple[str, ...]


class Transfer:
    """Of one run. `sources` by the scheme of an address."""

    def __init__(
        self,
        base: Path,
        sources: Callable[[URL], Source],
        *,
        tokens: Tokens,
        bandwidth: Bandwidth,
        pace: Pace,
        report: Report,
    ) -> None:
        self.base = base
        self.source = sources
        self.tokens = tokens
        self.bandwidth = bandwidth
        self.pace = pace
        self.report = report

    async def fetch(self, entry: Entry, claim: Claim) -> Fetched | Missing:
        """Raises DiskFull, LostClaim, UnsafePath, and OSError where the disk refuses for another reason."""
        target = await to_end(lambda: names.below(self.base, entry.path))
        part = await PartFile.open(target, trust_unsynced=entry.sha256 is not None)
        try:
            self.report.came(entry.path, part.size_bytes)
            if part.size_bytes:
                self.report.event("continued", path=entry.path, at_bytes=part.size_bytes)
            return await self._from_mirrors(entry, part, claim)
        finally:
            await part.leave()

    async def _from_mirrors(self, entry: Entry, part: PartFile, claim: Claim) -> Fetched | Missing:
        reasons: list[str] = []
        waiting = deque((addresses.read(url), False) for url in entry.urls)
        while waiting:
            url, patient = waiting.popleft()
            # The last one may be as slow as it likes.
            may_be_slow = patient or not waiting
            try:
                return await self._from_mirror(url, entry, part, claim, may_be_slow=may_be_slow)
            except TooSlow as error:
                reasons.append(f"{addresses.shown(url)}: {error}")
                waiting.append((url, True))
            except SourceError as error:
                reasons.append(str(error))
            self.report.event("mirror_left", path=entry.path, reason=self.tokens.redacted(reasons[-1]))
            # What follows is not of this mirror.
            part.inherited = part.size_bytes > 0
        return Missing(tuple(self.tokens.redacted(reason) for reason in reasons))

    async def _from_mirror(
        self, url: URL, entry: Entry, part: PartFile, claim: Claim, *, may_be_slow: bool
    ) -> Fetched:
        url, wanted = await self._wanted(url, entry)
        self.report.expect(entry.path, wanted.size_bytes)
        patience = Patience(self.pace, size_bytes=part.size_bytes)
        stream = _Stream(self, url, wanted, entry, part, claim, patience, may_be_slow=may_be_slow)
        async for attempt in patience.attempts():
            with attempt:
                try:
                    await stream.run()
                except Passing as error:
                    self.report.event("again", path=entry.path, reason=self.tokens.redacted(str(error)))
                    raise
                finally:
                    patience.reached(part.size_bytes)
        claim.check()
        state = await part.put_in_place()
        await to_end(lambda: bookkeeping.remember(self.base, entry.path, state, part.sha256, ours=True))
        return Fetched(state.st_size, part.sha256)

    async def _wanted(self, url: URL, entry: Entry) -> tuple[URL, Wanted]:
        """What the manifest wants, made up from what the publisher says. Raises Useless where the two disagree."""
        wanted = Wanted(entry.size_bytes, entry.sha256)
        if not hugging_face.is_hub(url):
            return url, wanted
        try:
            said = await hugging_face.published(url, self.tokens)
        except Passing as error:
            # The file may be had all the same.
            self.report.event("unpublished", path=entry.path, reason=self.tokens.redacted(str(error)))
            return hugging_face.file_url(url), wanted
        if wanted.sha256 and said.sha256 and said.sha256 != wanted.sha256:
            raise Useless(f"{addresses.shown(url)}: publishes another file (sha256 {said.sha256})")
        if wanted.size_bytes is not None and said.size_bytes not in {None, wanted.size_bytes}:
            raise Useless(
                f"{addresses.shown(url)}: publishes {said.size_bytes} bytes, not {wanted.size_bytes}"
            )
        return said.url, Wanted(
            wanted.size_bytes if wanted.size_bytes is not None else said.size_bytes,
            wanted.sha256 or said.sha256,
        )


class _Stream:
    """The attempts at one mirror. Each `run` ends with a whole and right part, or raises."""

    def __init__(
        self,
        transfer: Transfer,
        url: URL,
        wanted: Wanted,
        entry: Entry,
        part: PartFile,
        claim: Claim,
        patience: Patience,
        *,
        may_be_slow: bool,
    ) -> None:
        self._transfer = transfer
        self._url = url
        self._wanted = wanted
        self._entry = entry
        self._part = part
        self._claim = claim
        self._patience = patience
        self._may_be_slow = may_be_slow
        self._place = addresses.shown(url)
        # Two files may differ by their query alone, which may be secret.
        self._origin = f"{self._place} {hashlib.sha256(str(url).encode()).hexdigest()[:16]}"
        self._doubts = 0

    async def run(self) -> None:
        if self._patience.moving:
            # One bad machine behind a balancer lies again and again, and the others do not.
            self._doubts = 0
        try:
            await self._attempt()
        except Doubtful as error:
            self._doubts += 1
            if self._doubts >= DOUBTS_TO_GIVE_UP:
                raise Useless(f"{error} (and again after a fresh start)") from error
            if self._doubts >= DOUBTS_TO_START_ANEW:
                await self._start_anew()
            raise

    async def _start_anew(self) -> None:
        await self._part.restart()
        self._patience.started_anew()
        self._transfer.report.came(self._entry.path, 0)

    async def _attempt(self) -> None:
        part, wanted = self._part, self._wanted
        same_version = part.origin.source == self._origin and part.origin.validator is not None
        if part.size_bytes and wanted.sha256 is None and not same_version:
            # Nothing would tell in the end that two versions were joined.
            await self._start_anew()
        if wanted.size_bytes is not None and part.size_bytes > wanted.size_bytes:
            await self._start_anew()
        whole = wanted.size_bytes is not None and part.size_bytes == wanted.size_bytes
        if not (whole and (part.size_bytes or part.inherited)):
            only_if = part.origin.validator if wanted.sha256 is None else None
            source = self._transfer.source(self._url)
            html = self._entry.path.endswith((".html", ".htm"))
            async with source.open(self._url, offset=part.size_bytes, only_if=only_if, page=html) as answer:
                total = await self._agreed(answer)
                self._transfer.report.expect(self._entry.path, total)
                await self._take(answer, total)
            if total is not None and part.size_bytes < total:
                raise Passing(f"{self._place}: ended at {part.size_bytes} of {total} bytes")
        await self._judge()

    async def _agreed(self, answer: Answer) -> int | None:
        """The size that the file will have, None if nobody knows; the part stands where the answer starts."""
        part, wanted = self._part, self._wanted
        total = answer.total_bytes
        if total is not None and wanted.size_bytes not in {None, total}:
            raise Doubtful(f"{self._place}: has {total} bytes, not {wanted.size_bytes}")
        if wanted.sha256 is None and part.size_bytes and total not in {None, part.origin.total_bytes}:
            raise Doubtful(f"{self._place}: has {total} bytes now, {part.origin.total_bytes} before")
        if answer.start not in {0, part.size_bytes}:
            raise Doubtful(f"{self._place}: sends from byte {answer.start}, asked for {part.size_bytes}")
        if part.size_bytes and answer.start == 0:
            if wanted.sha256 is not None and self._doubts == 0:
                # Perhaps it only lies once; what we have is worth a second question.
                raise Doubtful(f"{self._place}: sends the whole file in place of the rest")
            await self._start_anew()
        if part.size_bytes == 0:
            await part.begin(self._origin, validator=answer.validator, total_bytes=total)
        return total if total is not None else wanted.size_bytes

    async def _take(self, answer: Answer, total: int | None) -> None:
        """All that comes, into the part. What came before an error or a cancellation is kept too."""
        transfer, part = self._transfer, self._part
        watch = SlowWatch(transfer.pace.slow_bytes_per_s, transfer.pace.slow_window_s)
        pending = bytearray()
        asked_at = time.monotonic()
        try:
            async with aclosing(answer.blocks) as blocks:
                async for block in blocks:
                    waited_s = time.monotonic() - asked_at
                    pending += block
                    if total is not None and part.size_bytes + len(pending) > total:
                        pending.clear()
                        raise Doubtful(f"{self._place}: sends more than the {total} bytes it spoke of")
                    if not self._may_be_slow:
                        watch.came(len(block), waited_s)
                    transfer.report.came(self._entry.path, part.size_bytes + len(pending))
                    if len(pending) >= WRITE_BYTES:
                        full, pending = pending, bytearray()
                        await self._write(full)
                    await transfer.bandwidth.take(len(block))
                    asked_at = time.monotonic()
        finally:
            if pending:
                await self._write(pending)

    async def _write(self, block: bytearray) -> None:
        self._claim.check()
        await self._part.append(block)

    async def _judge(self) -> None:
        part, wanted = self._part, self._wanted
        if wanted.sha256 is None or part.sha256 == wanted.sha256:
            return
        inherited, found = part.inherited, part.sha256
        await self._start_anew()
        message = f"{self._place}: corrupt, sha256 {found} in place of {wanted.sha256}"
        if inherited:
            # The wrong bytes may be those of an earlier run or of another mirror.
            raise Passing(message)
        raise Useless(message)
