"""Writes the ledger into the database behind its back: many changes in one transaction, by one task.

Nothing waits for it but a prompt that is about to be sent up, and that one not long: a gateway whose database is
away for a while serves on and writes it all down afterwards. What was not written when the process is killed is
found again by asking the servers, for the row of a prompt is there before the prompt is.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.ports import Clock, Entries, LedgerStore
from comfy_gateway.core.prompts.prompts import Hiding, LedgerChange, LedgerRow, PromptRecord
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

WAIT_S: Final = 1.0
"""How long a prompt waits for being written down."""
LINGER_S: Final = 0.2
"""How long a change for which nobody waits lies about, so that it shares a transaction with others."""
READ_S: Final = 3.0
CLOSING_S: Final = 3.0
MAX_CHANGES: Final = 200
"""In one transaction, so that others get at the database between two."""
MAX_PENDING_ENTRIES: Final = 2_000
"""Entries that wait for a database that is away; beyond it the oldest are given up."""
KEEP_PROMPTS: Final = 100_000
"""In the database; ten times as many as ComfyUI itself remembers."""
PRUNE_INTERVAL_S: Final = 3600.0
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MOST_S: Final = 5.0


class Journal:
    """The stored side of the ledger. Reads see what is not written yet."""

    def __init__(
        self,
        store: LedgerStore,
        clock: Clock,
        *,
        wait_s: float = WAIT_S,
        linger_s: float = LINGER_S,
        keep_prompts: int = KEEP_PROMPTS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wait_s = wait_s
        self._linger_s = linger_s
        self._keep_prompts = keep_prompts
        self._tasks = Tasks("journal")
        self._is_running = False
        self._is_behind = False
        self._pending: dict[str, LedgerChange] = {}
        self._hidings: list[Hiding] = []
        self._in_flight: dict[str, LedgerChange] = {}
        self._waiting: dict[str, asyncio.Future[LedgerRow | None]] = {}
        self._foreign: set[str] = set()
        """Ids that another gateway has given to a prompt of somebody else; ours is only in memory."""
        self._is_dirty = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._pruned_at_s = clock.monotonic()

    def start(self) -> None:
        """Begin to write."""
        self._is_running = True
        self._tasks.start(self._run(), name="writing the ledger")

    async def aclose(self) -> None:
        """Write what is left, within some seconds, and end."""
        if not self._is_running:
            return
        self._is_running = False
        await self._tasks.aclose()
        try:
            async with asyncio.timeout(CLOSING_S):
                while self._pending or self._hidings:
                    await self._write_some()
        except (StoreUnavailable, TimeoutError):
            logger.warning("%d changes of the ledger could not be written", len(self._pending))

    # -- what is to be written

    async def write_down(self, row: LedgerRow, body: bytes) -> LedgerRow | None:
        """Have a new prompt in the database before it is sent anywhere.

        Returns the row that is stored under this id already, or None: it was written, or the database is too slow to
        be waited for and will be told later.
        """
        prompt_id = row.record.prompt_id
        self._foreign.discard(prompt_id)
        change = self._change(prompt_id)
        change.row, change.is_new, change.body, change.is_body_done = row, True, body, False
        if not self._is_running or self._is_behind:
            self._is_dirty.set()
            return None
        waiter: asyncio.Future[LedgerRow | None] = asyncio.get_running_loop().create_future()
        self._waiting[prompt_id] = waiter
        self._is_dirty.set()
        self._is_urgent.set()
        try:
            async with asyncio.timeout(self._wait_s):
                return await waiter
        except TimeoutError:
            self._fall_behind("it is slow")
            return None
        finally:
            self._waiting.pop(prompt_id, None)

    def note(self, row: LedgerRow) -> None:
        """The prompt stands like this now."""
        self._change(row.record.prompt_id).row = row
        self._is_dirty.set()

    def discard(self, prompt_id: str) -> None:
        """The prompt was not accepted: nothing of it stays."""
        self._pending[prompt_id] = LedgerChange(prompt_id, is_discarded=True)
        self._is_dirty.set()

    def drop_body(self, prompt_id: str) -> None:
        """Nobody will submit this prompt again."""
        change = self._change(prompt_id)
        change.body, change.is_body_done = None, True
        self._is_dirty.set()

    def keep_entry(self, prompt_id: str, entry: dict[str, Any]) -> None:
        """The entry in the history as clients are shown it; a later one replaces it."""
        self._change(prompt_id).entry = entry
        self._is_dirty.set()
        held = [change for change in self._pending.values() if change.entry is not None]
        if len(held) > MAX_PENDING_ENTRIES:
            held[0].entry = None

    def hide(self, hiding: Hiding) -> None:
        """Take prompts out of a user's history."""
        self._hidings.append(hiding)
        self._is_dirty.set()

    # -- what is asked

    async def load(self, newest: int) -> list[LedgerRow]:
        """See ``LedgerStore.load``. Raises StoreUnavailable."""
        return list(await self._store.load(newest))

    async def highest_position(self) -> int:
        """See ``LedgerStore.highest_position``. Raises StoreUnavailable."""
        return await self._store.highest_position()

    async def find(self, prompt_id: str) -> LedgerRow | None:
        """The stored row; None too where the database does not answer."""
        async with _unless_unavailable("a prompt"):
            return await self._store.find(prompt_id)
        return None

    async def body(self, prompt_id: str) -> bytes | None:
        """The stored body, which is without secrets. Raises StoreUnavailable."""
        for change in self._unwritten(prompt_id):
            if change.is_body_done or change.body is not None:
                return change.body
        return await self._store.body(prompt_id)

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """The kept entry; None too where the database does not answer."""
        for change in self._unwritten(prompt_id):
            if change.entry is not None:
                return dict(change.entry)
        async with _unless_unavailable("an entry of the history"):
            return await self._store.entry(prompt_id)
        return None

    async def entries(self, user_key: str | None, *, limit: int, before: PromptRecord | None) -> Entries:
        """The stored ones; none where the database does not answer."""
        async with _unless_unavailable("a history"):
            return await self._store.entries(user_key, limit=limit, before=before)
        return []

    def unwritten_entries(self) -> dict[str, dict[str, Any]]:
        """Entries that are not in the database yet."""
        changes = [*self._in_flight.values(), *self._pending.values()]
        return {change.prompt_id: dict(change.entry) for change in changes if change.entry is not None}

    def _change(self, prompt_id: str) -> LedgerChange:
        if prompt_id in self._foreign:
            return LedgerChange(prompt_id)
        return self._pending.setdefault(prompt_id, LedgerChange(prompt_id))

    def _unwritten(self, prompt_id: str) -> list[LedgerChange]:
        """Newest first."""
        found = (self._pending.get(prompt_id), self._in_flight.get(prompt_id))
        return [change for change in found if change is not None]

    # -- the task

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._is_dirty.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._is_urgent.wait()
            self._is_dirty.clear()
            self._is_urgent.clear()
            try:
                await self._write_some()
                self._catch_up()
                await self._prune()
            except Exception as error:  # the loop's edge
                if not isinstance(error, StoreUnavailable):
                    logger.exception("the ledger could not be written once")
                failures += 1
                self._fall_behind(str(error))
                self._is_dirty.set()
                await self._clock.sleep(min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 10), BACKOFF_MOST_S))
            else:
                failures = 0
                if self._pending or self._hidings:
                    self._is_dirty.set()
                    self._is_urgent.set()

    async def _write_some(self) -> None:
        """One transaction. What could not be written is put back. Raises StoreUnavailable."""
        taken = [self._pending.pop(prompt_id) for prompt_id in tuple(self._pending)[:MAX_CHANGES]]
        # What is hidden has to be written before it can be found.
        hidings, self._hidings = ([], self._hidings) if self._pending else (self._hidings, [])
        self._in_flight = {change.prompt_id: change for change in taken}
        try:
            await self._write(taken, hidings)
        except BaseException:
            for change in taken:
                self._put_back(change)
            self._hidings = hidings + self._hidings
            raise
        finally:
            self._in_flight = {}

    async def _write(self, changes: list[LedgerChange], hidings: list[Hiding]) -> None:
        if not changes and not hidings:
            return
        try:
            conflicts = await self._store.write(changes, hidings)
        except StoreUnavailable:
            raise
        except Exception:
            if len(changes) + len(hidings) > 1:  # the others must not suffer for the one
                for change in changes:
                    await self._write([change], [])
                for hiding in hidings:
                    await self._write([], [hiding])
                return
            logger.exception("one change of the ledger cannot be stored and is left out")
            conflicts = []
        stored = {row.record.prompt_id: row for row in conflicts}
        for change in changes:
            self._conclude(change, stored.get(change.prompt_id))

    def _conclude(self, change: LedgerChange, conflict: LedgerRow | None) -> None:
        """The transaction with this change is over; ``conflict`` is what was there already."""
        waiter = self._waiting.get(change.prompt_id)
        if conflict is not None and change.row is not None and _is_same(conflict.record, change.row.record):
            # It was written before, and the database's answer did not come.
            change.is_new = False
            self._put_back(change)
        elif conflict is not None and (waiter is None or waiter.done()):
            logger.warning("the id of prompt %s is stored for another; it stays in memory", change.prompt_id)
            self._foreign.add(change.prompt_id)
            self._pending.pop(change.prompt_id, None)
        elif conflict is not None and waiter is not None:
            waiter.set_result(conflict)
            return
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _put_back(self, change: LedgerChange) -> None:
        later = self._pending.get(change.prompt_id)
        self._pending[change.prompt_id] = change if later is None else _joined(change, later)

    async def _prune(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._pruned_at_s >= PRUNE_INTERVAL_S:
            self._pruned_at_s = now_s
            removed = await self._store.prune(self._keep_prompts)
            if removed:
                logger.info("%d old prompts were removed from the ledger", removed)

    def _fall_behind(self, reason: str) -> None:
        if not self._is_behind:
            self._is_behind = True
            logger.warning("the ledger is kept in memory until the database takes it: %s", reason)
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_result(None)

    def _catch_up(self) -> None:
        if self._is_behind:
            self._is_behind = False
            logger.info("the database takes the ledger again")


def _joined(older: LedgerChange, newer: LedgerChange) -> LedgerChange:
    if newer.is_discarded:
        return newer
    is_body_newer = newer.is_body_done or newer.body is not None
    return LedgerChange(
        older.prompt_id,
        row=newer.row or older.row,
        is_new=older.is_new or newer.is_new,
        is_discarded=older.is_discarded,
        body=newer.body if is_body_newer else older.body,
        is_body_done=newer.is_body_done if is_body_newer else older.is_body_done,
        entry=newer.entry if newer.entry is not None else older.entry,
    )


def _is_same(stored: PromptRecord, ours: PromptRecord) -> bool:
    mine = (ours.user_key, ours.position, ours.accepted_at)
    return (stored.user_key, stored.position, stored.accepted_at) == mine


@contextlib.asynccontextmanager
async def _unless_unavailable(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(READ_S):
            yield
    except (StoreUnavailable, TimeoutError) as error:
        logger.warning("%s cannot be read: %s", what, str(error) or "too late")
