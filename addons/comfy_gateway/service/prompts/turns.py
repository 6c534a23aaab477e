"""Fair turns on the shared servers, and the bound on how much one user may queue there (docs/fairness.md).

One ``FairTurns`` for each server. What runs and ends is heard from the ledger; what a server has from before our
start is read from its queue once.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from comfy_gateway.core.errors import BackendUnavailable, PromptRefused
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import ComfyServer
from comfy_gateway.core.prompts.fair_turns import FairTurns
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.refusals import queue_full
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.prompts.ledger import Ledger

logger = logging.getLogger(__name__)

LOOK_S: Final = 3.0
RUN: Final = frozenset({Outcome.DONE, Outcome.ERROR})
"""Endings of what certainly ran."""


class Turns:
    """Gives prompts their numbers on shared servers; private pods have one user, and are left as they are."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        comfy: ComfyServer,
        is_fair: bool = True,
        weights: Mapping[str, float] | None = None,
        most_queued: int = 0,
    ) -> None:
        """``weights`` by name of a user; 1 for the others. ``most_queued``: per user, 0 for no bound."""
        self._ledger = ledger
        self._comfy = comfy
        self._is_fair = is_fair
        self._weights = {UserId(IdKind.NAMED, name).key: one for name, one in (weights or {}).items()}
        self._most_queued = most_queued
        self._servers: dict[str, FairTurns] = {}
        self._where: dict[str, str] = {}
        """Server by prompt id."""
        self._numbers: dict[str, float] = {}
        self._learning: dict[str, asyncio.Lock] = {}
        ledger.watch(self._changed)
        ledger.watch_releases(self.drop)

    async def learn(self, backend: Backend) -> None:
        """Read the queue of a shared server once, before the first prompt of ours goes there."""
        if backend.source is not Source.DUTY or backend.id in self._servers:
            return
        async with self._learning.setdefault(backend.id, asyncio.Lock()):
            if backend.id in self._servers:
                return
            turns = FairTurns(lambda user: self._weights.get(user, 1.0))
            try:
                async with asyncio.timeout(LOOK_S):
                    queue = await self._comfy.queue(backend)
            except (BackendUnavailable, TimeoutError) as error:
                logger.info("the queue of %s is not known: %s", backend.id, error)
                return
            for prompt_id, number in queue.numbers.items():
                record = self._ledger.find(prompt_id)
                if record is not None and not record.is_finished:
                    turns.found(
                        prompt_id,
                        record.user_key or "",
                        record.number,
                        number,
                        is_running=prompt_id in queue.running,
                    )
                    self._where[prompt_id] = backend.id
            self._servers[backend.id] = turns

    def place_again(self, record: PromptRecord, backend: Backend) -> None:
        """As ``place``, for one that its server has lost: it comes back among its user's own where it was."""
        self.drop(record.prompt_id)
        self.place(record, backend, is_late=True)

    def place(
        self, record: PromptRecord, backend: Backend, *, is_new: bool = False, is_late: bool = False
    ) -> None:
        """This prompt is to go to that server. Does nothing for one that has its place there.

        Raises PromptRefused for a new one that is one too many.
        """
        if self._where.get(record.prompt_id) == backend.id:
            return
        self.drop(record.prompt_id)
        if backend.source is not Source.DUTY:
            return
        user = record.user_key or ""
        queued = sum(turns.count(user) for turns in self._servers.values())
        if is_new and 0 < self._most_queued <= queued:
            raise PromptRefused(queue_full(self._most_queued))
        turns = self._servers.setdefault(backend.id, FairTurns(lambda key: self._weights.get(key, 1.0)))
        self._numbers[record.prompt_id] = turns.place(record.prompt_id, user, record.number, is_late=is_late)
        self._where[record.prompt_id] = backend.id

    def has_number(self, prompt_id: str) -> bool:
        """Whether what is sent is to be changed at all."""
        return self._is_fair and prompt_id in self._where

    def number(self, prompt_id: str) -> float | None:
        """The number to send it with now; None to leave it to the server's counter."""
        if self._servers[self._where[prompt_id]].is_alone(prompt_id):
            return None
        return self._numbers.get(prompt_id)

    def order_of(self, record: PromptRecord) -> float:
        """What the server of an unfinished prompt orders it by, as far as is known."""
        server = self._where.get(record.prompt_id) if self._is_fair else None
        number = None if server is None else self._servers[server].number_of(record.prompt_id)
        return record.number if number is None else number

    def answered(self, prompt_id: str, number: object) -> None:
        """The server has accepted it under this number."""
        own = self._numbers.pop(prompt_id, None)
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if self._is_fair and own is not None and is_number and number != own:
            self._servers[self._where[prompt_id]].answered(prompt_id, float(str(number)))

    def drop(self, prompt_id: str, *, was_run: bool = False) -> None:
        """It will not run there, or has run. Unknown ones are passed over."""
        self._numbers.pop(prompt_id, None)
        server = self._where.pop(prompt_id, None)
        if server is not None:
            self._servers[server].gone(prompt_id, was_run=was_run)

    def _changed(self, record: PromptRecord) -> None:
        server = self._where.get(record.prompt_id)
        if server is None:
            return
        if record.is_finished:
            self.drop(record.prompt_id, was_run=record.outcome in RUN)
        elif record.backend_id != server:
            self.drop(record.prompt_id)
        elif record.outcome is Outcome.RUNNING:
            self._servers[server].begun(record.prompt_id)
