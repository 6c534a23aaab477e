"""Endings that no socket told us.

A prompt whose client has gone away still ends, but ComfyUI tells only the socket of its client. Without this a
finished prompt would count as in flight for ever and keep a pod alive. So would one on a pod whose ComfyUI has died
while the cloud and the agent find nothing wrong. What a server does not know any more is for ``Rescue``.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, ComfyServer
from comfy_gateway.core.prompts.prompts import PromptRecord, outcome_of_history
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.prompts.rescue import Rescue
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)


ANSWER_WITHIN_S: Final = 60.0
"""All servers are asked together; the next round waits for the slowest, but not for ever."""


class Settling:
    """Asks the servers about prompts that have been open for a whole interval."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        routes: Routes,
        comfy: ComfyServer,
        rescue: Rescue,
        may_return: Callable[[str], bool],
        has_stand_in: Callable[[str], bool] = lambda _backend_id: False,
        clock: Clock,
        interval_s: float = 15.0,
        give_up_s: float = 900.0,
    ) -> None:
        """``may_return`` says of a backend without a route whether it is a pod that is still being looked at, and
        ``has_stand_in`` of a duty server whether it is dead while another lives.

        ``give_up_s``: a pod whose ComfyUI did not answer for so long has lost its prompts, and so has a duty server
        that has a stand-in. The only one is waited for without end, for it costs nothing more.
        """
        self._ledger = ledger
        self._routes = routes
        self._comfy = comfy
        self._rescue = rescue
        self._may_return = may_return
        self._has_stand_in = has_stand_in
        self._clock = clock
        self._interval_s = interval_s
        self._give_up_s = give_up_s
        self._open_before: set[str] = set()
        self._mute_since_s: dict[str, float] = {}
        """By id of a backend that was asked in vain."""

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
        unfinished = self._ledger.unfinished()
        due = [record for record in unfinished if record.prompt_id in self._open_before]
        self._open_before = {record.prompt_id for record in unfinished}
        by_backend: dict[str, list[PromptRecord]] = {}
        for record in due:
            by_backend.setdefault(record.backend_id, []).append(record)
        self._mute_since_s = {id_: at_s for id_, at_s in self._mute_since_s.items() if id_ in by_backend}
        await asyncio.gather(*(self._ask(records) for records in by_backend.values()))

    async def _ask(self, records: list[PromptRecord]) -> None:
        backend = self._backend(records[0])
        if backend is None:
            if not self._may_return(records[0].backend_id):
                self._give_up(records)
            return
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                fates = await self._comfy.fates(backend, [record.prompt_id for record in records])
            for prompt_id, entry in fates.items():
                if entry is None:
                    self._rescue.forgotten(prompt_id, backend.id)
                else:
                    self._ledger.end(prompt_id, outcome_of_history(entry))
        except (BackendUnavailable, TimeoutError) as error:
            now_s = self._clock.monotonic()
            mute_s = now_s - self._mute_since_s.setdefault(backend.id, now_s)
            is_replaced = backend.source is Source.PRIVATE or self._has_stand_in(backend.id)
            if is_replaced and mute_s >= self._give_up_s:
                logger.warning(
                    "prompts on %s are given up: no answer for %.0f s (%s)", backend.id, mute_s, error
                )
                self._give_up(records)
            else:
                logger.info("prompts on %s stay open: %s", backend.id, error)
        else:
            self._mute_since_s.pop(backend.id, None)

    def _give_up(self, records: list[PromptRecord]) -> None:
        for user_key, backend_id in {(record.user_key, record.backend_id) for record in records}:
            self._rescue.backend_died(None if user_key is None else UserId.from_key(user_key), backend_id)

    def _backend(self, record: PromptRecord) -> Backend | None:
        user = None if record.user_key is None else UserId.from_key(record.user_key)
        return self._routes.by_id(user, record.backend_id)
