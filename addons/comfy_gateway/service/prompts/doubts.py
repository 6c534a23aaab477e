"""Looks into prompts whose answer nobody heard.

The client or the server went away, or the gateway was killed, between the sending of a prompt and its answer. The
server knows: what runs, waits or has ended there was accepted. What is in neither for a while was not; for a while,
because a server puts a prompt into its queue only after it has checked it.

A prompt that an earlier gateway sent is another matter. Its answer may have reached the client just before that gateway
was killed, and its server may have restarted since. It counts as accepted and lost, which means that it is submitted
again: at worst a prompt runs whose client saw its connection break.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, ComfyServer
from comfy_gateway.core.prompts.prompts import PromptRecord, outcome_of_history
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
SETTLE_S: Final = 20.0
"""So long a prompt must have been missing before it counts as not accepted."""
LOOKS: Final = 3
GIVE_UP_S: Final = 3600.0
"""A server that does not answer for so long will not know the prompt any more."""


class Rescuer(Protocol):
    """Sees to prompts that their server has lost."""

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        """The server does not know an accepted prompt any more."""
        ...


@dataclass(slots=True)
class _Absence:
    since_s: float
    looks: int = 0


class Doubts:
    """Settles what ``Ledger.doubtful`` lists."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        routes: Routes,
        comfy: ComfyServer,
        rescuer: Rescuer,
        clock: Clock,
        overdue_s: float,
        settle_s: float = SETTLE_S,
    ) -> None:
        """``overdue_s``: no answer comes so long after a prompt was sent."""
        self._ledger = ledger
        self._routes = routes
        self._comfy = comfy
        self._rescuer = rescuer
        self._clock = clock
        self._overdue_s = overdue_s
        self._settle_s = settle_s
        self._absent: dict[str, _Absence] = {}
        self._mute_since_s: dict[str, float] = {}
        """By prompt id: since when its server was asked in vain."""

    async def run(self) -> None:
        """Look at the interval, for ever."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self.look()
            except Exception:
                logger.exception("doubts could not be looked into once")

    async def look(self) -> None:
        """Ask each server that may have such prompts, once."""
        self._ledger.doubt_older_than(self._overdue_s)
        doubtful = self._ledger.doubtful()
        ids = {record.prompt_id for record in doubtful}
        for memory in (self._absent, self._mute_since_s):
            for prompt_id in memory.keys() - ids:
                del memory[prompt_id]
        by_backend: dict[tuple[str, str | None], list[PromptRecord]] = {}
        for record in doubtful:
            by_backend.setdefault((record.backend_id, record.user_key), []).append(record)
        # At once, for a mute server must not delay the others. Not by a TaskGroup: a task that fails before its first
        # await, as an eager one can, has it cancel the parent for good.
        await asyncio.gather(*map(self._ask, by_backend.values()))

    async def _ask(self, records: list[PromptRecord]) -> None:
        backend = self._backend(records[0])
        if backend is None:
            for record in records:
                self._discard(record, "its server is gone")
            return
        try:
            fates = await self._comfy.fates(backend, [record.prompt_id for record in records])
        except BackendUnavailable as error:
            self._note_silence(records, str(error))
            return
        for record in records:
            self._mute_since_s.pop(record.prompt_id, None)
            if fates.get(record.prompt_id, True) is None:
                self._note_absence(record)
            else:
                self._confirm(record, fates.get(record.prompt_id))

    def _confirm(self, record: PromptRecord, entry: Mapping[str, Any] | None) -> None:
        logger.info("prompt %s was accepted by %s after all", record.prompt_id, record.backend_id)
        self._ledger.confirm(record.prompt_id)
        if entry is not None:
            self._ledger.end(record.prompt_id, outcome_of_history(entry))

    def _note_absence(self, record: PromptRecord) -> None:
        now_s = self._clock.monotonic()
        absence = self._absent.setdefault(record.prompt_id, _Absence(now_s))
        absence.looks += 1
        if absence.looks >= LOOKS and now_s - absence.since_s >= self._settle_s:
            self._discard(record, "its server does not know it")

    def _note_silence(self, records: list[PromptRecord], reason: str) -> None:
        now_s = self._clock.monotonic()
        for record in records:
            self._absent.pop(record.prompt_id, None)  # the server may have restarted since
            since_s = self._mute_since_s.setdefault(record.prompt_id, now_s)
            if now_s - since_s >= GIVE_UP_S:
                self._discard(record, reason)

    def _discard(self, record: PromptRecord, why: str) -> None:
        if self._ledger.is_inherited(record.prompt_id):
            logger.warning(
                "prompt %s may have been accepted by %s: %s", record.prompt_id, record.backend_id, why
            )
            self._ledger.confirm(record.prompt_id)
            self._rescuer.forgotten(record.prompt_id, record.backend_id)
            return
        logger.info("prompt %s was not accepted by %s: %s", record.prompt_id, record.backend_id, why)
        self._ledger.discard(record.prompt_id)

    def _backend(self, record: PromptRecord) -> Backend | None:
        user = None if record.user_key is None else UserId.from_key(record.user_key)
        return self._routes.by_id(user, record.backend_id)
