"""Which server has which prompt, and which of them still run."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from comfy_gateway.core.prompts import Outcome, PromptRecord
from comfy_gateway.core.users import UserId

MAX_RECORDS = 50_000
"""Finished prompts beyond this many are forgotten, the oldest first. ComfyUI itself keeps 10 000."""

Watcher = Callable[[PromptRecord], None]


class Ledger:
    """Accepted prompts in memory, fed by the answers to ``POST /prompt`` and by the relay's events."""

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        self._max_records = max_records
        self._records: OrderedDict[str, PromptRecord] = OrderedDict()
        self._unfinished: dict[str, PromptRecord] = {}
        self._early: OrderedDict[str, Outcome] = OrderedDict()
        self._watchers: list[Watcher] = []

    def accept(self, record: PromptRecord) -> None:
        """Note an accepted prompt. An ending that the socket told before the answer arrived is applied to it."""
        early = self._early.pop(record.prompt_id, None)
        self._store(record if early is None else replace(record, outcome=early))
        while len(self._records) > self._max_records:
            oldest = next((key for key in self._records if key not in self._unfinished), None)
            if oldest is None:
                break
            del self._records[oldest]

    def begin(self, prompt_id: str) -> None:
        """Note that the server has begun to execute a prompt. Nothing happens when it has ended or is unknown."""
        record = self._records.get(prompt_id)
        if record is not None and record.outcome is Outcome.ACCEPTED:
            self._store(replace(record, outcome=Outcome.RUNNING))

    def end(self, prompt_id: str, outcome: Outcome) -> bool:
        """Note the ending of a prompt. False when it had ended before; an unknown one is kept for ``accept``."""
        record = self._records.get(prompt_id)
        if record is None:
            # The events of a short prompt can overtake the answer to the POST that made it.
            self._early[prompt_id] = outcome
            while len(self._early) > self._max_records:
                self._early.popitem(last=False)
            return True
        if record.is_finished:
            return False
        self._store(replace(record, outcome=outcome))
        return True

    def find(self, prompt_id: str) -> PromptRecord | None:
        """The record of a prompt, or None when it was never accepted here or is forgotten."""
        return self._records.get(prompt_id)

    def unfinished(
        self,
        *,
        user: UserId | None = None,
        sid: str | None = None,
        backend_id: str | None = None,
    ) -> list[PromptRecord]:
        """Prompts that have not ended, oldest first, narrowed by what is given."""
        return [
            record
            for record in self._unfinished.values()
            if (user is None or record.user_key == user.key)
            and (sid is None or record.sid == sid)
            and (backend_id is None or record.backend_id == backend_id)
        ]

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have ``watcher(record)`` called after each acceptance, beginning and ending; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def _store(self, record: PromptRecord) -> None:
        self._records[record.prompt_id] = record
        if record.is_finished:
            self._unfinished.pop(record.prompt_id, None)
        else:
            self._unfinished[record.prompt_id] = record
        for watcher in tuple(self._watchers):
            watcher(record)
