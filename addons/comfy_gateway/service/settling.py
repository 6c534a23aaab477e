"""Endings that no socket told us.

A prompt whose client has gone away still ends, but ComfyUI tells only the socket of its client. Without this a
finished prompt would count as in flight for ever and keep a pod alive.
"""

import logging

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.ports import Clock, PromptStates
from comfy_gateway.core.prompts import Outcome, PromptRecord
from comfy_gateway.core.upstream import Backend
from comfy_gateway.core.users import UserId
from comfy_gateway.service.prompt_book import PromptBook
from comfy_gateway.service.routes import Routes

logger = logging.getLogger(__name__)


class Settling:
    """Asks the servers about prompts that have been open for a whole interval."""

    def __init__(
        self,
        *,
        book: PromptBook,
        routes: Routes,
        states: PromptStates,
        clock: Clock,
        interval_s: float = 15.0,
    ) -> None:
        self._book = book
        self._routes = routes
        self._states = states
        self._clock = clock
        self._interval_s = interval_s
        self._open_before: set[str] = set()

    async def run(self) -> None:
        """Settle at the interval, for ever."""
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                await self.settle()
            except Exception:
                logger.exception("settling failed once")

    async def settle(self) -> None:
        """One question to each server that has prompts which were open at the last round too."""
        unfinished = self._book.unfinished()
        due = [record for record in unfinished if record.prompt_id in self._open_before]
        self._open_before = {record.prompt_id for record in unfinished}
        by_backend: dict[str, list[PromptRecord]] = {}
        for record in due:
            by_backend.setdefault(record.backend_id, []).append(record)
        for records in by_backend.values():
            await self._ask(records)

    async def _ask(self, records: list[PromptRecord]) -> None:
        backend = self._backend(records[0])
        if backend is None:
            for record in records:
                self._book.end(record.prompt_id, Outcome.LOST)
            return
        try:
            queued = await self._states.queued_ids(backend)
            for record in records:
                if record.prompt_id not in queued:
                    outcome = await self._states.ending(backend, record.prompt_id)
                    # Neither queued nor in the history: somebody took it out of the queue. A server that restarted
                    # and forgot it cut its sockets, and the relay has told the page so.
                    self._book.end(record.prompt_id, outcome or Outcome.INTERRUPTED)
        except BackendUnavailable as error:
            logger.info("prompts on %s stay open: %s", backend.id, error)

    def _backend(self, record: PromptRecord) -> Backend | None:
        user = None if record.user_key is None else UserId.from_key(record.user_key)
        return self._routes.by_id(user, record.backend_id)
