"""A ledger whose database is a dictionary, with an outage switch."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.ports import Clock, Entries
from comfy_gateway.core.prompts.prompts import Hiding, LedgerChange, LedgerRow, PromptRecord, ended_key
from comfy_gateway.service.prompts.journal import Journal
from comfy_gateway.service.prompts.ledger import Ledger


class FakeLedgerStore:
    """Implements ``core.ports.LedgerStore``."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRow] = {}
        self.bodies: dict[str, bytes] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        self.is_down = False
        self.lost_answers = 0
        """So many transactions are written, and then the connection breaks."""
        self.refused: set[str] = set()
        """Prompts that no transaction may hold."""
        self.calls: Counter[str] = Counter()

    async def write(
        self, changes: Sequence[LedgerChange], hidings: Sequence[Hiding] = ()
    ) -> Sequence[LedgerRow]:
        """In the order of the port."""
        self._answer("write")
        if any(change.prompt_id in self.refused for change in changes):
            raise ValueError("the database will not have it")
        conflicts = []
        for change in changes:
            if change.is_discarded:
                self._remove(change.prompt_id)
            stored = self.rows.get(change.prompt_id)
            if change.is_new and stored is not None:
                conflicts.append(stored)
                continue
            if change.row is not None:
                self.rows[change.prompt_id] = change.row
            if change.prompt_id not in self.rows:
                continue
            if change.body is not None:
                self.bodies[change.prompt_id] = change.body
            if change.is_body_done:
                self.bodies.pop(change.prompt_id, None)
            if change.entry is not None:
                self.kept[change.prompt_id] = copy.deepcopy(dict(change.entry))
        for hiding in hidings:
            for prompt_id, row in self.rows.items():
                if _hides(hiding, row.record):
                    self.rows[prompt_id] = replace(row, record=replace(row.record, is_hidden=True))
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("the connection broke off after the commit")
        return conflicts

    async def load(self, newest: int) -> Sequence[LedgerRow]:
        """By position."""
        self._answer("load")
        rows = sorted(self.rows.values(), key=lambda row: row.record.position)
        done = [row for row in rows if row.is_confirmed and row.record.is_finished]
        kept = {row.record.prompt_id for row in done[max(len(done) - newest, 0) :]}
        return [row for row in rows if row not in done or row.record.prompt_id in kept]

    async def highest_position(self) -> int:
        """0 where there is none."""
        self._answer("highest_position")
        return max((row.record.position for row in self.rows.values()), default=0)

    async def find(self, prompt_id: str) -> LedgerRow | None:
        """One row."""
        self._answer("find")
        return self.rows.get(prompt_id)

    async def body(self, prompt_id: str) -> bytes | None:
        """One body."""
        self._answer("body")
        return self.bodies.get(prompt_id)

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """One entry."""
        self._answer("entry")
        row = self.rows.get(prompt_id)
        return None if row is None or row.record.is_hidden else copy.deepcopy(self.kept.get(prompt_id))

    async def entries(
        self, user_key: str | None, *, limit: int, before: PromptRecord | None = None
    ) -> Entries:
        """Last ended first."""
        self._answer("entries")
        found = [
            (row.record, copy.deepcopy(self.kept[prompt_id]))
            for prompt_id, row in self.rows.items()
            if prompt_id in self.kept and row.record.user_key == user_key and _is_shown(row)
        ]
        if before is not None:
            found = [pair for pair in found if ended_key(pair[0]) < ended_key(before)]
        return sorted(found, key=lambda pair: ended_key(pair[0]), reverse=True)[:limit]

    async def prune(self, keep: int) -> int:
        """The oldest by position."""
        self._answer("prune")
        done = [row for row in self.rows.values() if row.is_confirmed and row.record.is_finished]
        done.sort(key=lambda row: row.record.position)
        old = done[: max(len(done) - keep, 0)]
        for row in old:
            self._remove(row.record.prompt_id)
        return len(old)

    def _remove(self, prompt_id: str) -> None:
        for table in (self.rows, self.bodies, self.kept):
            table.pop(prompt_id, None)

    def _answer(self, call: str) -> None:
        self.calls[call] += 1
        if self.is_down:
            raise StoreUnavailable("the database does not answer")


def _is_shown(row: LedgerRow) -> bool:
    return row.is_confirmed and row.record.is_finished and not row.record.is_hidden


def _hides(hiding: Hiding, record: PromptRecord) -> bool:
    if record.user_key != hiding.user_key or record.ended_at is None or record.ended_at > hiding.at:
        return False
    return hiding.prompt_ids is None or record.prompt_id in hiding.prompt_ids


def ledger_in_memory(clock: Clock, store: FakeLedgerStore | None = None, **limits: int) -> Ledger:
    """A ledger that is never written down; what it is asked for is answered from memory all the same."""
    return Ledger(clock, Journal(store or FakeLedgerStore(), clock), **limits)
