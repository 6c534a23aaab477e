"""Predicts how long prompts wait on shared servers. Prompts that came past the gateway are not counted."""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.waiting import Pace, predicted_wait_s
from comfy_gateway.service.prompts.ledger import Ledger

RUN: Final = Outcome.DONE
"""The only ending that tells how long a run takes."""


class Waits:
    """``order_of(record)`` is what the server of an unfinished prompt orders it by."""

    def __init__(self, *, ledger: Ledger, order_of: Callable[[PromptRecord], float], clock: Clock) -> None:
        self._ledger = ledger
        self._order_of = order_of
        self._clock = clock
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)
        ledger.watch(self._changed)

    def of(self, record: PromptRecord) -> float | None:
        """Seconds until this unfinished prompt begins; None while its server's pace is not known."""
        usual_s = self._paces[record.backend_id].usual_s if record.backend_id in self._paces else None
        if usual_s is None:
            return None
        own = self._order_of(record)
        now = self._clock.now()
        return predicted_wait_s(
            usual_s,
            (
                0.0 if other.started_at is None else (now - other.started_at).total_seconds()
                for other in self._ledger.unfinished(backend_id=record.backend_id)
                if other.prompt_id != record.prompt_id
                and (other.started_at is not None or self._order_of(other) < own)
            ),
        )

    def _changed(self, record: PromptRecord) -> None:
        # One that was run on another server before says nothing: its beginning may have been there.
        if record.outcome is RUN and record.started_at and record.ended_at and not record.replays:
            self._paces[record.backend_id].ran((record.ended_at - record.started_at).total_seconds())
