"""The vault: outputs of private pods, kept beyond the pods' ends.

Files are copied as events name them, again as the history entry of an ended prompt does, and what nobody named is found
by a sweep of the pod's output folder before the pod ends. Which files of a living pod are still owed is known in memory
only: after a restart the entries and the sweep name them again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

from comfy_gateway.core.errors import PodFilesUnavailable, StorageUnavailable, StoreError
from comfy_gateway.core.files.files import ALIASED_TYPES, FileName
from comfy_gateway.core.life.session import Event, Session
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.core.vault.entries import pod_files_in, with_files
from comfy_gateway.core.vault.ports import PodFiles, PodPlace, VaultDisk, VaultRows
from comfy_gateway.core.vault.vault import StoredFile, address_of, file_key, shown_name, version_named_by
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.service.vault.copier import Copier, Wish
from comfy_gateway.service.vault.pod_copies import Around, PodCopies
from comfy_gateway.service.vault.trouble import Trouble, VaultStats

logger = logging.getLogger(__name__)

POLL_S: Final = 0.25
SWEEP_AGAIN_S: Final = 1.0
SWEEP_PATIENCE_S: Final = 30.0
"""How long an agent that has answered before and does not now is asked for what else there is."""
NO_AGENT_S: Final = 5.0
"""How long one that never answered is: many images have none."""
STALLED_S: Final = 60.0
"""Copies on which nothing moved for so long are no reason to keep a pod."""
END_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a pod's files at the moment of its end."""

    is_complete: bool
    copied: int
    owed: int
    """Files that are known and not copied."""
    reason: str
    """In words for the log."""


class Pods(Protocol):
    """Where pods are."""

    def find(self, pod_name: str) -> PodPlace | None:
        """The pod's place while its session has it, or None."""
        ...

    def is_serving(self, alias: str) -> bool:
        """Whether requests for files of the pod with this alias go to the pod itself."""
        ...


class Pending(Protocol):
    """Who else still reads from pods before they may end."""

    def is_busy(self, backend_id: str) -> bool:
        """Whether history entries of this pod are still to be read."""
        ...


class Vault:
    """Copies, finds and lists. ``start`` before anything else, ``aclose`` at the end."""

    def __init__(
        self,
        *,
        pods: Pods,
        files: PodFiles,
        disk: VaultDisk,
        rows: VaultRows,
        clock: Clock,
        hold_s: float,
        max_file_bytes: int | None = None,
    ) -> None:
        """``hold_s``: for how long after a file was last named its copy keeps a pod from being idle."""
        self._pods = pods
        self._files = files
        self._disk = disk
        self._rows = rows
        self._clock = clock
        self._hold_s = hold_s
        self._tasks = Tasks("vault")
        self._copies: dict[str, PodCopies] = {}
        self._completed: set[str] = set()
        """Pods whose files are all safe, as long as nothing more is named."""
        self._until_s: dict[str, float] = {}
        """When the wait for a pod ends, however often it is begun."""
        self._owners: dict[str, str] = {}
        self._pending: Pending | None = None
        self._on_failure: Callable[[UserId], None] = lambda _user: None
        self.stats = VaultStats()
        self.trouble = Trouble(clock, self.stats)
        self._around = Around(
            Copier(files=files, disk=disk, rows=rows, clock=clock, max_file_bytes=max_file_bytes),
            files,
            rows,
            clock,
            self._tasks,
            self.trouble,
            self.stats,
            self._note_failure,
        )

    async def start(self) -> None:
        """Learn whose pods have files here, and try the place. Raises StoreUnavailable; a place that cannot be written
        is said and tried again with each file.
        """
        self._owners.update(await self._rows.owners())
        self.stats.size_bytes = await self._rows.total_bytes()
        try:
            await self._disk.check()
        except StorageUnavailable as error:
            self.trouble.note(str(error))

    def wait_for(self, pending: Pending) -> None:
        """Have ``complete`` wait for these readers too."""
        self._pending = pending

    def on_failure(self, callback: Callable[[UserId], None]) -> None:
        """Have ``callback(user)`` called whenever a try to copy from this user's pod got nothing."""
        self._on_failure = callback

    # -- what is named

    def note(self, user_key: str | None, backend: Backend, prompt_id: str, file: FileName) -> None:
        """A server has named this file, by its own name, as an output of this prompt. Synchronous."""
        if backend.source is not Source.PRIVATE or user_key is None or file.type not in ALIASED_TYPES:
            return
        if backend.id not in self._copies and self._pods.find(backend.id) is None:
            return  # told late of a pod that is gone
        copies = self._copies_of(backend.id, user_key, backend.alias)
        if copies.want(Wish(file, prompt_id)):
            self._completed.discard(backend.id)

    def in_flight(self, pod_name: str) -> int:
        """Files that are being copied, as far as they are a reason not to call the pod idle.

        None when nothing moves any more, or some time after the last one was named: copying must not keep a pod for
        ever, and when it ends the rest is waited for all the same, up to a deadline.
        """
        copies = self._copies.get(pod_name)
        if copies is None:
            return 0
        now_s = self._clock.monotonic()
        is_stalled = now_s - max(copies.moved_s, copies.named_s) > STALLED_S
        return 0 if is_stalled or now_s - copies.named_s > self._hold_s else copies.owed

    # -- the end of a pod

    async def complete(self, pod_name: str, deadline_s: float, *, patience_s: float | None = None) -> Report:
        """Copy what is owed and what a sweep finds, for so long at most. Never raises for what pod or disk do.

        ``patience_s``: give up earlier when the pod has not answered anything for so long. A second call for a pod goes
        on with the first one's deadline.
        """
        place = self._pods.find(pod_name)
        if place is None or pod_name in self._completed:
            return Report(True, 0, 0, "nothing is owed")
        copies = self._copies_of(pod_name, place.user_key, place.backend.alias)
        until_s = self._until_s.setdefault(pod_name, self._clock.monotonic() + deadline_s)
        report = await _Completion(
            copies, self._pending, self._clock, self.trouble, until_s, patience_s
        ).report()
        if report.is_complete:
            self._completed.add(pod_name)
            logger.info("vault of pod %s: %d files are safe (%s)", pod_name, report.copied, report.reason)
        else:
            logger.warning(
                "vault of pod %s is not complete: %d files copied, %d not: %s",
                pod_name,
                report.copied,
                report.owed,
                report.reason,
            )
        return report

    def session_moved(self, before: Session, _after: Session, event: Event) -> None:
        """A watcher of sessions: what was not copied from a pod that has ended is lost."""
        if event is not Event.ENDED or before.pod is None:
            return
        pod_name = before.pod.name
        copies = self._copies.pop(pod_name, None)
        lost = 0 if copies is None else copies.close()
        if copies is not None and pod_name not in self._completed:
            self.stats.pods_incomplete += 1
        self._completed.discard(pod_name)
        self._until_s.pop(pod_name, None)
        self.stats.files_lost += lost
        if lost:
            logger.error("pod %s has ended, and %d files that it made are lost", pod_name, lost)

    # -- what is here

    def holds(self, user_key: str | None, name: FileName) -> bool:
        """Whether a shown name is one of a pod of this user of which something is here; ``find`` says whether it is."""
        address = address_of(name)
        return address is not None and user_key is not None and self._owners.get(address.alias) == user_key

    async def find(self, user_key: str | None, name: FileName) -> StoredFile | None:
        """The content that a shown name means, if it is here and this user's. Raises StoreUnavailable."""
        address = address_of(name)
        if address is None or not self.holds(user_key, name):
            return None
        versions = [
            stored
            for stored in await self._rows.of_names([(address.alias, address.file)])
            if stored.user_key == user_key and stored.file == address.file
        ]
        if address.version is None:
            return versions[-1] if versions else None
        return next((stored for stored in versions if stored.version == address.version), None)

    async def openable(
        self, user_key: str | None, entries: Sequence[tuple[PromptRecord, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Entries in their shown form with those files of pods that open, each under the address that means it.

        Left out is what died with its pod before it was copied, and what retention removed. A content that was
        written over since is shown under its own address. Where the database does not answer they are as they came.
        """
        names = {(address.alias, address.file) for _, entry in entries for _, address in pod_files_in(entry)}
        if user_key is None or not names:
            return [entry for _, entry in entries]
        versions: dict[str, list[StoredFile]] = {}
        try:
            for stored in await self._rows.of_names(names):
                if stored.user_key == user_key:
                    versions.setdefault(file_key(stored.alias, stored.file), []).append(stored)
        except StoreError as error:
            logger.warning("history is shown without a look into the vault: %s", error)
            return [entry for _, entry in entries]
        return [with_files(entry, self._decider(record, entry, versions)) for record, entry in entries]

    def chunks(self, stored: StoredFile, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The content's bytes. Raises StorageUnavailable, and FileNotFoundError for one that retention removed."""
        return self._disk.read(stored.path, start, stored.size_bytes if stop is None else stop)

    def open(self, stored: StoredFile) -> BinaryIO:
        """The content, to be read in a thread. Raises as ``chunks``."""
        return self._disk.open(stored.path)

    async def aclose(self) -> None:
        """Stop all copies within two seconds; what is half copied is thrown away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                await self._tasks.aclose()
        await self._disk.aclose()

    def _copies_of(self, pod_name: str, user_key: str, alias: str) -> PodCopies:
        copies = self._copies.get(pod_name)
        if copies is None:
            copies = self._copies[pod_name] = PodCopies(
                pod_name, user_key, alias, lambda: self._pods.find(pod_name), self._around, self._note_stored
            )
        return copies

    def _note_failure(self, user_key: str) -> None:
        self._on_failure(UserId.from_key(user_key))

    def _note_stored(self, stored: StoredFile) -> None:
        self._owners[stored.alias] = stored.user_key
        self.stats.size_bytes += stored.size_bytes

    def _decider(
        self, record: PromptRecord, entry: Mapping[str, Any], versions: Mapping[str, list[StoredFile]]
    ) -> Callable[[FileName], FileName | None]:
        names: dict[FileName, FileName | None] = {}
        for name, address in pod_files_in(entry):
            stored = versions.get(file_key(address.alias, address.file))
            if stored:
                meant = version_named_by(record.prompt_id, record.ended_at, stored)
                names[name] = shown_name(meant, is_newest=meant is stored[-1])
            else:
                names[name] = name if self._pods.is_serving(address.alias) else None
        return lambda name: names.get(name, name)


class _Completion:
    """One wait for everything that a pod owes."""

    def __init__(
        self,
        copies: PodCopies,
        pending: Pending | None,
        clock: Clock,
        trouble: Trouble,
        until_s: float,
        patience_s: float | None,
    ) -> None:
        self._copies = copies
        self._pending = pending
        self._clock = clock
        self._trouble = trouble
        self._begun_s = clock.monotonic()
        self._until_s = until_s
        self._patience_s = patience_s
        self._agent_silent_since_s: float | None = None
        self._unswept = ""

    async def report(self) -> Report:
        while True:
            is_reading = self._is_reading()
            if not self._copies.owed and not is_reading and await self._is_swept():
                return self._told(True, self._unswept or "the sweep found nothing more")
            if (reason := self._given_up(is_reading=is_reading)) is not None:
                return self._told(False, reason)
            self._copies.work()
            await self._clock.sleep(POLL_S)

    def _is_reading(self) -> bool:
        if self._pending is None or not self._pending.is_busy(self._copies.pod_name):
            return False
        waited_s = self._clock.monotonic() - self._begun_s
        return self._patience_s is None or waited_s < self._patience_s

    async def _is_swept(self) -> bool:
        if self._unswept:
            return True
        try:
            wanted = await self._copies.sweep()
        except (PodFilesUnavailable, StoreError) as error:
            now_s = self._clock.monotonic()
            if self._agent_silent_since_s is None:
                self._agent_silent_since_s = now_s
            usual_s = SWEEP_PATIENCE_S if self._copies.knows_agent else NO_AGENT_S
            patience_s = usual_s if self._patience_s is None else self._patience_s
            if now_s - self._agent_silent_since_s < patience_s:
                await self._clock.sleep(SWEEP_AGAIN_S)
                return False
            self._unswept = f"not swept for files that no prompt named: {error}"
            logger.warning("pod %s is %s", self._copies.pod_name, self._unswept)
            return True
        self._agent_silent_since_s = None
        if wanted is None:
            self._unswept = "not swept: its agent lists no files"
        return not wanted

    def _given_up(self, *, is_reading: bool) -> str | None:
        if self._patience_s is not None and self._copies.silent_for_s > self._patience_s:
            return f"the pod has not answered for {self._copies.silent_for_s:.0f} s"
        if self._clock.monotonic() < self._until_s:
            return None
        if self._trouble.reason is not None:
            return f"the vault cannot be written: {self._trouble.reason}"
        return "its history was not read in time" if is_reading else "its files did not arrive in time"

    def _told(self, is_complete: bool, reason: str) -> Report:
        return Report(is_complete, self._copies.copied, self._copies.owed, reason)
