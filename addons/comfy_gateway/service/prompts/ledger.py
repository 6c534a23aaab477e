"""Which server has which prompt, whose it is, and how it ended.

All questions are answered from memory, at once; the database is written behind by the journal. A prompt is reserved
before it is sent up, written down with the server that it goes to, and confirmed or discarded by that server's
answer. Where the answer was not heard the prompt is *doubtful*, until its server has been asked or one of its events
has proved that it was accepted.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.body import MAX_ID_CHARACTERS
from comfy_gateway.core.prompts.prompts import Hiding, LedgerRow, Outcome, PromptRecord, ended_key
from comfy_gateway.core.prompts.visibility import UNCLAIMED, Owner
from comfy_gateway.service.prompts.journal import Journal

logger = logging.getLogger(__name__)

MAX_RECORDS: Final = 50_000
"""Finished prompts beyond this many are forgotten, the oldest first. ComfyUI itself keeps 10 000."""
LOADED_RECORDS: Final = 20_000
"""So many of the newest are read at the start; what is older is found in the database."""
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
"""Of bodies in memory. Those of the oldest prompts are left to the database, which has them without secrets."""

MAX_COUNTED: Final = 10**9
"""No server counts that far: a greater number was chosen by a client, and ours need not go on from there."""
_STEP: Final = 2.0**-20
"""Small enough that prompts which ended out of turn stay below the number of the next prompt."""

Watcher = Callable[[PromptRecord], None]


@dataclass(frozen=True, slots=True)
class New:
    """The id is free and now held for this prompt, until it is confirmed or discarded."""


@dataclass(frozen=True, slots=True)
class Same:
    """The same user's prompt with this id was accepted before."""

    record: PromptRecord


@dataclass(frozen=True, slots=True)
class InFlight:
    """The same user's prompt with this id is on its way."""

    settled: asyncio.Future[PromptRecord | None] | None
    """The record once it is accepted, None once it is refused; not to be cancelled. None where another gateway has
    sent it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """The id belongs to a prompt of somebody else."""


type Reserved = New | Same | InFlight | Foreign


@dataclass(slots=True)
class _Reservation:
    record: PromptRecord
    settled: asyncio.Future[PromptRecord | None]
    on_accepted: Watcher | None = None
    sent_at_s: float | None = None
    """Monotonic."""
    is_doubtful: bool = False
    is_inherited: bool = False
    """An earlier gateway sent it, and may have passed on the answer before it ended."""
    started_at: datetime | None = None
    ending: tuple[Outcome, datetime] | None = None


@dataclass(slots=True)
class _Early:
    """What the events of a prompt told before anybody had heard of it."""

    started_at: datetime | None = None
    ending: tuple[Outcome, datetime] | None = None


@dataclass(slots=True)
class _Bodies:
    """Bodies of unfinished prompts, the oldest first."""

    most_bytes: int
    kept: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    size_bytes: int = 0

    def keep(self, prompt_id: str, body: bytes) -> None:
        self.drop(prompt_id)
        self.kept[prompt_id] = body
        self.size_bytes += len(body)
        while self.size_bytes > self.most_bytes:
            self.drop(next(iter(self.kept)))

    def drop(self, prompt_id: str) -> None:
        self.size_bytes -= len(self.kept.pop(prompt_id, b""))


class Ledger:
    """The prompts of this gateway."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        *,
        max_records: int = MAX_RECORDS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._max_records = max_records
        self._position = 0
        self._latest_number = -math.inf
        """The greatest number in anybody's history."""
        self._records: OrderedDict[str, PromptRecord] = OrderedDict()
        self._unfinished: dict[str, PromptRecord] = {}
        self._by_user: dict[str | None, dict[str, None]] = {}
        self._reserved: dict[str, _Reservation] = {}
        self._bodies = _Bodies(max_body_bytes)
        self._early: OrderedDict[str, _Early] = OrderedDict()
        self._watchers: list[Watcher] = []
        self._release_watchers: list[Callable[[str], None]] = []

    async def load(self) -> None:
        """Take in what was stored, before anything else is asked. Prompts whose answer was not heard are doubtful.

        Raises StoreUnavailable.
        """
        self._position = await self._journal.highest_position()
        for row in await self._journal.load(LOADED_RECORDS):
            if row.is_confirmed:
                self._remember(row.record)
            else:
                held = self._hold(row.record)
                held.is_doubtful = held.is_inherited = True

    # -- one prompt, from its arrival to its end

    def next_number(self) -> int:
        """The next of the whole numbers that clients see; they go on rising after a restart."""
        self._position += 1
        return self._position

    def saw_number(self, number: float) -> None:
        """An entry that the ledger does not know stands in a history under this number; ours go on above it.

        A server that served without the gateway before has counted on its own.
        """
        self._latest_number = max(self._latest_number, number)
        if number < MAX_COUNTED:
            self._position = max(self._position, math.ceil(number))

    def reserve(self, record: PromptRecord, on_accepted: Watcher | None = None) -> Reserved:
        """Hold the id of a prompt that has just arrived, so that nobody else can use it.

        ``on_accepted(record)`` is called once if it turns out to be accepted, however that becomes known.
        """
        known = self._records.get(record.prompt_id)
        if known is not None:
            return Same(known) if known.user_key == record.user_key else Foreign()
        held = self._reserved.get(record.prompt_id)
        if held is not None:
            return InFlight(held.settled) if held.record.user_key == record.user_key else Foreign()
        self._hold(record).on_accepted = on_accepted
        return New()

    async def write_down(self, record: PromptRecord, body: bytes, *, stored_body: bytes) -> Reserved:
        """Write a reserved prompt down just before it is sent; ``record`` now says to which server.

        Waits for the database, but not for one that does not answer. Anything but New means that the id was found
        there, older than what memory holds or another gateway's, and that the reservation has ended.
        ``stored_body`` is the body without secrets: what ``body`` still knows after a restart.
        """
        held = self._reserved.get(record.prompt_id)
        if held is None:  # an event has proved meanwhile that an earlier try was accepted
            return Same(self._records[record.prompt_id])
        held.record, held.sent_at_s = record, self._clock.monotonic()
        found = await self._journal.write_down(LedgerRow(record, is_confirmed=False), stored_body)
        if found is None:
            self._bodies.keep(record.prompt_id, body)
            return New()
        self._release(record.prompt_id, None)
        if found.record.user_key != record.user_key:
            return Foreign()
        return Same(found.record) if found.is_confirmed else InFlight(None)

    def confirm(
        self,
        prompt_id: str,
        *,
        answered_id: str | None = None,
        node_errors: Mapping[str, Any] | None = None,
    ) -> PromptRecord | None:
        """The server has accepted a reserved prompt; returns its record, or None for one that is not reserved.

        ``answered_id`` is the id in the server's answer: a server from before ``prompt_id`` was known gives its own.
        What events told meanwhile is applied to it.
        """
        held = self._reserved.get(prompt_id)
        if held is None:
            return self._records.get(prompt_id)
        record = replace(held.record, node_errors=node_errors or {})
        early = _Early(held.started_at, held.ending)
        if answered_id is not None and answered_id != prompt_id and self._is_free(answered_id):
            self._journal.discard(prompt_id)
            self._bodies.drop(prompt_id)  # that server would not take an id of ours the next time either
            record = replace(record, prompt_id=answered_id)
            early = self._early.pop(answered_id, early)
        del self._reserved[prompt_id]
        record = _with_early(record, early)
        if not held.settled.done():
            held.settled.set_result(record)
        stored = self._store(record)
        if held.on_accepted is not None:
            _tell(held.on_accepted, stored)
        return stored

    def discard(self, prompt_id: str) -> None:
        """A reserved prompt was not accepted: the id is free again."""
        if prompt_id in self._reserved:
            self._release(prompt_id, None)
            self._journal.discard(prompt_id)

    def doubt(self, prompt_id: str) -> None:
        """The answer to a reserved prompt will not be heard: it may have been accepted."""
        held = self._reserved.get(prompt_id)
        if held is None:
            return
        held.is_doubtful = True
        if held.started_at is not None or held.ending is not None:
            self.confirm(prompt_id)

    def doubt_older_than(self, seconds: float) -> None:
        """The answers to prompts that were sent so long ago will not be heard any more."""
        until_s = self._clock.monotonic() - seconds
        for prompt_id, held in tuple(self._reserved.items()):
            if not held.is_doubtful and held.sent_at_s is not None and held.sent_at_s <= until_s:
                self.doubt(prompt_id)

    def doubtful(self) -> list[PromptRecord]:
        """Prompts that may have been accepted, oldest first."""
        return [held.record for held in self._reserved.values() if held.is_doubtful]

    def is_inherited(self, prompt_id: str) -> bool:
        """Whether an earlier gateway sent a doubtful prompt: its client may have heard that it was accepted."""
        held = self._reserved.get(prompt_id)
        return held is not None and held.is_inherited

    def accept(self, record: PromptRecord) -> None:
        """Enter an accepted prompt that was not reserved. What events told before is applied to it."""
        early = self._early.pop(record.prompt_id, _Early())
        self._store(_with_early(record, early))

    def begin(self, prompt_id: str) -> None:
        """Note that the server has begun to execute a prompt. Nothing happens when it has ended or is unknown."""
        record = self._records.get(prompt_id)
        if record is not None:
            if record.outcome is Outcome.ACCEPTED:
                self._store(replace(record, outcome=Outcome.RUNNING, started_at=self._clock.now()))
        elif (held := self._reserved.get(prompt_id)) is not None:
            held.started_at = self._clock.now()
            if held.is_doubtful:
                self.confirm(prompt_id)
        else:
            self._note_early(prompt_id).started_at = self._clock.now()

    def end(self, prompt_id: str, outcome: Outcome) -> bool:
        """Note the ending of a prompt. False when it had ended before; an early one is kept for its acceptance."""
        record = self._records.get(prompt_id)
        if record is not None:
            if record.is_finished:
                return False
            self._store(replace(record, outcome=outcome, ended_at=self._clock.now()))
            return True
        # The events of a short prompt can overtake the answer to the POST that made it.
        held = self._reserved.get(prompt_id)
        early = held if held is not None else self._note_early(prompt_id)
        if early.ending is not None:
            return False
        early.ending = (outcome, self._clock.now())
        if held is not None and held.is_doubtful:
            self.confirm(prompt_id)
        return True

    def move(self, prompt_id: str, backend_id: str) -> PromptRecord:
        """Another server has the prompt from now on, and it begins anew; watchers are told.

        Nothing happens to a prompt that has ended. Raises KeyError for an unknown one.
        """
        record = self._records[prompt_id]
        if record.is_finished:
            return record
        return self._store(
            replace(
                record,
                backend_id=backend_id,
                outcome=Outcome.ACCEPTED,
                started_at=None,
                replays=record.replays + 1,
            )
        )

    async def body(self, prompt_id: str) -> bytes | None:
        """The body of an unfinished prompt as it was sent up, but with inputs as the client named them.

        None where it has ended or the body is not known. After a restart it is without secrets.
        Raises StoreUnavailable.
        """
        record = self._records.get(prompt_id)
        if record is None or record.is_finished:
            return None
        body = self._bodies.kept.get(prompt_id)
        return body if body is not None else await self._journal.body(prompt_id)

    # -- what is known

    def find(self, prompt_id: str) -> PromptRecord | None:
        """The record of a prompt, or None when it was never accepted here or is forgotten."""
        return self._records.get(prompt_id)

    def owner(self, prompt_id: str) -> Owner:
        """Whose prompt it is, also while it is on its way; UNCLAIMED for one that memory does not hold."""
        record = self._records.get(prompt_id)
        if record is None and (held := self._reserved.get(prompt_id)) is not None:
            record = held.record
        return UNCLAIMED if record is None else record.user_key

    async def recall(self, prompt_id: str) -> PromptRecord | None:
        """As ``find``, and from the database where memory has forgotten it and the database answers."""
        record = self._records.get(prompt_id)
        if record is not None or prompt_id in self._reserved:
            return record
        row = await self._journal.find(prompt_id)
        return row.record if row is not None and row.is_confirmed else None

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

    def of_user(self, user_key: str | None, *, backend_id: str | None = None) -> list[PromptRecord]:
        """All prompts of a user that memory holds, hidden ones too, in the order of their acceptance.

        None is for those that came without any identity.
        """
        records = [self._records[prompt_id] for prompt_id in self._by_user.get(user_key, ())]
        return [record for record in records if backend_id is None or record.backend_id == backend_id]

    def ended_since(self, when: datetime) -> list[PromptRecord]:
        """Prompts of everybody that memory holds and that ended at that UTC time or later."""
        return [
            record
            for record in self._records.values()
            if record.is_finished and record.ended_at is not None and record.ended_at >= when
        ]

    def newest(self) -> Iterator[PromptRecord]:
        """Prompts of everybody that memory holds, those accepted last first. Not to be kept over an ``await``."""
        return reversed(self._records.values())

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have ``watcher(record)`` called after each acceptance, beginning, move and ending; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def watch_releases(self, watcher: Callable[[str], None]) -> None:
        """Have ``watcher(prompt_id)`` called when a reserved prompt turns out not to have been accepted."""
        self._release_watchers.append(watcher)

    def reserved(self, prompt_id: str) -> PromptRecord | None:
        """The record of a prompt whose answer is not known yet."""
        held = self._reserved.get(prompt_id)
        return None if held is None else held.record

    # -- the history

    def forget(self, user_key: str | None, prompt_ids: Iterable[str] | None = None) -> None:
        """Take prompts that have ended out of a user's history, for ever; None: all of them.

        Those of others, and those that have not ended, stay.
        """
        wanted = None if prompt_ids is None else frozenset(prompt_ids)
        for record in self.of_user(user_key):
            if record.is_finished and not record.is_hidden and (wanted is None or record.prompt_id in wanted):
                self._records[record.prompt_id] = replace(record, is_hidden=True)
                self._journal.note(LedgerRow(self._records[record.prompt_id]))
        if wanted is None or wanted:
            self._journal.hide(Hiding(user_key, wanted, self._clock.now()))

    def keep_entry(self, prompt_id: str, entry: dict[str, Any]) -> None:
        """Keep the history entry of a prompt as clients are to see it: shown form, without secrets."""
        if prompt_id in self._records:
            self._journal.keep_entry(prompt_id, entry)

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """The kept entry, also of a prompt that memory has forgotten. None where there is none, it was taken out of
        the history, or the database does not answer.
        """
        record = self._records.get(prompt_id)
        if record is not None and record.is_hidden:
            return None
        return await self._journal.entry(prompt_id)

    async def entries(
        self, user_key: str | None, *, limit: int, before: PromptRecord | None = None
    ) -> list[tuple[PromptRecord, dict[str, Any]]]:
        """A user's prompts with a kept entry, what ended last first, hidden ones left out.

        ``before``: only those that ended before that one. Only what is not stored yet while the database does not
        answer.
        """
        found = {}
        for prompt_id, entry in self._journal.unwritten_entries().items():
            record = self._records.get(prompt_id)
            if record is not None and record.user_key == user_key:
                found[prompt_id] = (record, entry)
        for stored, entry in await self._journal.entries(user_key, limit=limit, before=before):
            record = self._records.get(stored.prompt_id, stored)
            found.setdefault(record.prompt_id, (record, entry))
        shown = [pair for pair in found.values() if not pair[0].is_hidden and pair[0].is_finished]
        if before is not None:
            shown = [pair for pair in shown if ended_key(pair[0]) < ended_key(before)]
        return sorted(shown, key=lambda pair: ended_key(pair[0]), reverse=True)[:limit]

    # -- within

    def _hold(self, record: PromptRecord) -> _Reservation:
        held = _Reservation(record, asyncio.get_running_loop().create_future())
        self._reserved[record.prompt_id] = held
        return held

    def _is_free(self, prompt_id: str) -> bool:
        """Whether a server may give this id: one that is known is its owner's, whatever a server says."""
        is_known = prompt_id in self._records or prompt_id in self._reserved
        return not is_known and len(prompt_id) <= MAX_ID_CHARACTERS and prompt_id.isprintable()

    def _release(self, prompt_id: str, record: PromptRecord | None) -> None:
        held = self._reserved.pop(prompt_id)
        self._bodies.drop(prompt_id)
        if not held.settled.done():
            held.settled.set_result(record)
        for watcher in self._release_watchers:
            watcher(prompt_id)

    def _note_early(self, prompt_id: str) -> _Early:
        early = self._early.setdefault(prompt_id, _Early())
        while len(self._early) > self._max_records:
            self._early.popitem(last=False)
        return early

    def _store(self, record: PromptRecord) -> PromptRecord:
        before = self._records.get(record.prompt_id)
        if record.is_finished and (before is None or not before.is_finished):
            record = replace(record, number=self._number_in_history(record.number))
        self._remember(record)
        self._journal.note(LedgerRow(record))
        if record.is_finished:
            self._bodies.drop(record.prompt_id)
            self._journal.drop_body(record.prompt_id)
        for watcher in tuple(self._watchers):
            _tell(watcher, record)
        return record

    def _number_in_history(self, number: float) -> float:
        """The number under which a prompt that ends now stands in the history.

        ComfyUI's front end takes a prompt into its history only if its number is greater than those that it has. Of two
        servers one may end a later prompt first; the earlier one would never appear.
        """
        if number > self._latest_number:
            return number
        above = self._latest_number + _STEP
        return above if above > self._latest_number else math.nextafter(self._latest_number, math.inf)

    def _remember(self, record: PromptRecord) -> None:
        if record.is_finished:
            self._latest_number = max(self._latest_number, record.number)
        self._records[record.prompt_id] = record
        self._by_user.setdefault(record.user_key, {})[record.prompt_id] = None
        if record.is_finished:
            self._unfinished.pop(record.prompt_id, None)
        else:
            self._unfinished[record.prompt_id] = record
        while len(self._records) > self._max_records:
            oldest = next((key for key in self._records if key not in self._unfinished), None)
            if oldest is None:
                break
            self._forget_record(oldest)

    def _forget_record(self, prompt_id: str) -> None:
        forgotten = self._records.pop(prompt_id)
        of_user = self._by_user[forgotten.user_key]
        del of_user[prompt_id]
        if not of_user:
            del self._by_user[forgotten.user_key]


def _tell(watcher: Watcher, record: PromptRecord) -> None:
    """Its fault must not keep the others from hearing of it, nor the page from its events."""
    try:
        watcher(record)
    except Exception:
        logger.exception("prompt %s: not everybody took notice of it", record.prompt_id)


def _with_early(record: PromptRecord, early: _Early) -> PromptRecord:
    if early.started_at is not None:
        record = replace(record, outcome=Outcome.RUNNING, started_at=early.started_at)
    if early.ending is not None:
        record = replace(record, outcome=early.ending[0], ended_at=early.ending[1])
    return record
