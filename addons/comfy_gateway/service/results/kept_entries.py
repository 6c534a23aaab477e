"""History entries that the gateway keeps of prompts which no server tells of any more."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from comfy_gateway.core.events.making_up import lost_entry
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.results.history import Ended, plain_number
from comfy_gateway.service.prompts.ledger import Ledger

MAX_KEPT: Final = 1_000
"""In one list; a plain ComfyUI has lost them all with its last restart."""

type Pairs = Sequence[tuple[PromptRecord, dict[str, Any]]]


class Openable(Protocol):
    """What is asked of the vault here."""

    async def openable(self, user_key: str | None, entries: Pairs) -> list[dict[str, Any]]:
        """The entries in their order, each with only those files that open."""
        ...


class AllOpenable:
    """Implements ``Openable`` where no vault is."""

    async def openable(self, _user_key: str | None, entries: Pairs) -> list[dict[str, Any]]:
        """As they came."""
        return [entry for _, entry in entries]


class KeptEntries:
    """Entries in their shown form, by the ledger and as far as the vault opens their files."""

    def __init__(self, ledger: Ledger, openable: Openable | None = None) -> None:
        self._ledger = ledger
        self._openable = openable or AllOpenable()

    def missing(self, user_key: str | None, is_missing: Callable[[PromptRecord], bool]) -> list[PromptRecord]:
        """Those of a user's prompts that a history could hold and of which ``is_missing`` says that none does."""
        return [
            record
            for record in self._ledger.of_user(user_key)
            if _may_be_listed(record) and is_missing(record)
        ]

    async def read(
        self, user_key: str | None, records: Collection[PromptRecord], *, most: int = MAX_KEPT
    ) -> list[Ended]:
        """The kept entries of these prompts, ended last stands last, of those that ended last at most so many.

        One of which nothing is kept is left out, unless it was lost: that is said. The database is not asked when
        nothing is wanted of it.
        """
        wanted = {record.prompt_id for record in records}
        most = min(most, MAX_KEPT)
        if not wanted or most < 1:
            return []
        pairs = [
            pair for pair in await self._ledger.entries(user_key, limit=most) if pair[0].prompt_id in wanted
        ]
        found = {record.prompt_id for record, _ in pairs}
        pairs += [
            (record, _lost(record))
            for record in records
            if _is_lost(record) and record.prompt_id not in found
        ]
        pairs.sort(key=lambda pair: (ended_ms(pair[0]) or 0, pair[0].position))
        entries = await self._openable.openable(user_key, pairs)
        kept = [
            Ended(record.prompt_id, entry, ended_ms(record))
            for (record, _), entry in zip(pairs, entries, strict=True)
        ]
        return kept[-most:]

    async def one(self, record: PromptRecord) -> dict[str, Any] | None:
        """The kept entry of one prompt, or None."""
        if not record.is_finished:
            return None
        entry = await self._ledger.entry(record.prompt_id)
        if entry is None:
            return _lost(record) if _is_lost(record) else None
        [opened] = await self._openable.openable(record.user_key, [(record, entry)])
        return opened


def ended_ms(record: PromptRecord) -> float | None:
    """When a prompt ended by our own clock, in milliseconds since 1970; None while it has not."""
    return None if record.ended_at is None else _ms(record.ended_at)


def _may_be_listed(record: PromptRecord) -> bool:
    """What was taken out of a queue is in no history."""
    was_taken_out = record.outcome is Outcome.INTERRUPTED and record.started_at is None
    return record.is_finished and not record.is_hidden and not was_taken_out


def _is_lost(record: PromptRecord) -> bool:
    return record.outcome is Outcome.LOST and not record.is_hidden


def _lost(record: PromptRecord) -> dict[str, Any]:
    return lost_entry(record.prompt_id, plain_number(record.number), {}, now_ms=int(ended_ms(record) or 0))


def _ms(moment: datetime) -> float:
    return moment.timestamp() * 1000
