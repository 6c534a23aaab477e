"""The history entry of every prompt that has ended, kept beyond the server that made it.

A pod takes its history with it, and a duty server forgets its own at a restart. The entry is read as soon as the
prompt has ended; the server writes it a moment after it tells of the ending. Where no server has it any more, one is
made up from the outputs that events named.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.files.files import FileName, files_in, shown, without_alias
from comfy_gateway.core.ports import Clock, ComfyServer
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.core.results.history import shown_entry
from comfy_gateway.core.vault.entries import entry_of_named
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

LOOKS_S: Final = (0.02, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before the looks for an entry: the server writes it just after it has told of the ending."""
AWAY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits for a server that does not answer."""
GIVE_UP_S: Final = 3600.0
AT_ONCE: Final = 4
MOST_NAMED: Final = 5_000
"""Prompts whose outputs are remembered until their entries are read."""
RECENT_S: Final = 600.0
"""Before a restart; an entry that was not read in time is looked for again."""
KEPT_OF: Final = frozenset({Outcome.DONE, Outcome.ERROR, Outcome.INTERRUPTED})
"""The entry of a lost prompt is written by whoever found it lost."""


class Entries(Protocol):
    """Where entries are kept: the ledger."""

    def keep_entry(self, prompt_id: str, entry: dict[str, Any]) -> None:
        """Keep an entry in its shown form."""
        ...

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """The kept entry, or None."""
        ...

    def of_user(self, user_key: str | None, *, backend_id: str | None = None) -> list[PromptRecord]:
        """All prompts of a user, oldest first."""
        ...

    def ended_since(self, when: datetime) -> list[PromptRecord]:
        """Prompts that ended at that time or later."""
        ...


class Servers(Protocol):
    """Where prompts ran."""

    def find(self, record: PromptRecord) -> Backend | None:
        """The server that has the prompt, or None once it is gone."""
        ...


type Named = Callable[[str | None, Backend, str, FileName], None]
"""As the watchers of ``service.files.files``."""


class Archive:
    """Reads entries in tasks of its own."""

    def __init__(
        self, *, entries: Entries, comfy: ComfyServer, servers: Servers, clock: Clock, named: Named
    ) -> None:
        """``named`` is told of each file that an entry names, by the server's own name for it."""
        self._entries = entries
        self._comfy = comfy
        self._servers = servers
        self._clock = clock
        self._named = named
        self._tasks = Tasks("archive")
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._reading: set[str] = set()
        self._busy: Counter[str] = Counter()
        self._outputs: OrderedDict[str, tuple[str, dict[FileName, None]]] = OrderedDict()
        """Server and shown names by prompt."""

    def prompt_changed(self, record: PromptRecord) -> None:
        """A watcher of the ledger."""
        if record.is_finished:
            self.read(record)

    def file_named(self, _user_key: str | None, backend: Backend, prompt_id: str, file: FileName) -> None:
        """A watcher of files: kept in case that the entry cannot be had."""
        backend_id, files = self._outputs.get(prompt_id, ("", {}))
        if backend_id != backend.id:  # it runs again, on another server
            files = {}
            self._outputs[prompt_id] = (backend.id, files)
        files[shown(file, backend.alias)] = None
        while len(self._outputs) > MOST_NAMED:
            self._outputs.popitem(last=False)

    def read(self, record: PromptRecord) -> None:
        """Read the entry of a prompt that has ended, unless that is being done already. Synchronous."""
        if record.outcome not in KEPT_OF or record.prompt_id in self._reading:
            self._outputs.pop(record.prompt_id, None)
            return
        self._reading.add(record.prompt_id)
        self._busy[record.backend_id] += 1
        self._tasks.start(self._read(record), name=f"entry of {record.prompt_id}")

    def is_busy(self, backend_id: str) -> bool:
        """Whether entries of this server are still to be read."""
        return self._busy[backend_id] > 0

    async def resume(self, pods: Mapping[str, str]) -> None:
        """After a restart: name the files of living pods again, and read what was not read in time.

        ``pods`` says whose pods there are: user key by pod name.
        """
        on_pods = [
            record
            for pod_name, user_key in pods.items()
            for record in self._entries.of_user(user_key, backend_id=pod_name)
        ]
        recent = self._entries.ended_since(self._clock.now() - timedelta(seconds=RECENT_S))
        for record in {record.prompt_id: record for record in (*on_pods, *recent)}.values():
            if record.outcome in KEPT_OF:
                await self._resume(record)

    async def aclose(self) -> None:
        """Stop reading. What was not read is looked for after the next start."""
        await self._tasks.aclose()

    async def _resume(self, record: PromptRecord) -> None:
        entry = await self._entries.entry(record.prompt_id)
        backend = self._servers.find(record)
        if entry is None and backend is not None and not record.is_hidden:
            self.read(record)
        elif backend is not None and entry is not None:
            for file in files_in(entry.get("outputs")):
                there = without_alias(file, backend.alias)
                if there is not None:
                    self._named(record.user_key, backend, record.prompt_id, there)

    async def _read(self, record: PromptRecord) -> None:
        try:
            await self._keep(record)
        finally:
            self._reading.discard(record.prompt_id)
            self._busy[record.backend_id] -= 1
            self._busy += Counter()
            self._outputs.pop(record.prompt_id, None)

    async def _keep(self, record: PromptRecord) -> None:
        looks = aways = 0
        deadline_s = self._clock.monotonic() + GIVE_UP_S
        await self._clock.sleep(LOOKS_S[0])
        while (backend := self._servers.find(record)) is not None:
            try:
                async with self._slots:
                    entry = await self._comfy.entry(backend, record.prompt_id)
            except BackendUnavailable as error:
                if self._clock.monotonic() > deadline_s:
                    logger.warning("the entry of prompt %s is not to be had: %s", record.prompt_id, error)
                    break
                await self._clock.sleep(AWAY_S[min(aways, len(AWAY_S) - 1)])
                aways += 1
                continue
            if entry is not None:
                self._store(record, backend, entry)
                return
            looks += 1
            if looks == len(LOOKS_S):
                break
            await self._clock.sleep(LOOKS_S[looks])
        self._make_up(record)

    def _store(self, record: PromptRecord, backend: Backend, entry: Mapping[str, Any]) -> None:
        kept = shown_entry(entry, alias=backend.alias, number=record.number, sid=record.sid)
        self._entries.keep_entry(record.prompt_id, kept)
        for file in files_in(entry.get("outputs")):
            self._named(record.user_key, backend, record.prompt_id, file)

    def _make_up(self, record: PromptRecord) -> None:
        """Nothing is kept of a prompt that was taken out of the queue before it began: no history has those."""
        if record.outcome is Outcome.INTERRUPTED and record.started_at is None:
            return
        backend_id, files = self._outputs.get(record.prompt_id, ("", {}))
        logger.info("the entry of prompt %s is made up, for no server has it", record.prompt_id)
        self._entries.keep_entry(
            record.prompt_id, entry_of_named(record, files if backend_id == record.backend_id else ())
        )
