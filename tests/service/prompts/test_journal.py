"""The ledger's stored side: grouped, behind, and through outages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from time import perf_counter

import pytest

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.prompts.prompts import Hiding, LedgerRow, Outcome, PromptRecord
from comfy_gateway.service.prompts.journal import MAX_PENDING_ENTRIES, PRUNE_INTERVAL_S, Journal
from comfy_gateway.service.prompts.ledger import Foreign, InFlight, Ledger, New, Same
from tests.conditions import wait_for
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import FakeLedgerStore
from tests.service.world import ALICE, BOB

QUICK_S = 0.05


def record(prompt_id: str = "p1", user: str | None = ALICE.key, **changes: object) -> PromptRecord:
    base = PromptRecord(prompt_id, user, "tab", "duty-0", accepted_at=START, position=1)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store() -> FakeLedgerStore:
    return FakeLedgerStore()


@pytest.fixture
async def journal(store: FakeLedgerStore, clock: FakeClock) -> AsyncIterator[Journal]:
    made = Journal(store, clock, wait_s=QUICK_S, linger_s=QUICK_S)
    made.start()
    yield made
    await made.aclose()


@pytest.fixture
def ledger(journal: Journal, clock: FakeClock) -> Ledger:
    return Ledger(clock, journal)


async def until(condition: Callable[[], object]) -> None:
    async def ask() -> object:
        return condition()

    await wait_for(ask, "the journal")


async def sent(ledger: Ledger, given: PromptRecord) -> object:
    """Reserve a prompt and write it down, as it is done just before it is sent."""
    reserved = ledger.reserve(given)
    if reserved != New():
        return reserved
    return await ledger.write_down(given, b"with a key", stored_body=b"body")


async def test_a_prompt_is_written_down_before_it_is_sent(ledger: Ledger, store: FakeLedgerStore) -> None:
    assert await sent(ledger, record()) == New()
    assert store.rows == {"p1": LedgerRow(record(), is_confirmed=False)}
    assert store.bodies == {"p1": b"body"}


async def test_prompts_that_come_together_share_a_transaction(ledger: Ledger, store: FakeLedgerStore) -> None:
    await asyncio.gather(*(sent(ledger, record(f"p{number}")) for number in range(50)))
    assert len(store.rows) == 50
    assert store.calls["write"] <= 3


async def test_nobody_waits_for_what_comes_later_and_it_shares_transactions(
    ledger: Ledger, store: FakeLedgerStore
) -> None:
    await sent(ledger, record())
    ledger.confirm("p1")
    ledger.begin("p1")
    ledger.end("p1", Outcome.DONE)
    ledger.keep_entry("p1", {"outputs": {}})
    await until(lambda: store.kept)
    assert store.rows["p1"].record == ledger.find("p1")
    assert store.rows["p1"].is_confirmed
    assert store.bodies == {}
    assert store.calls["write"] == 2


async def test_a_refused_prompt_leaves_no_row(ledger: Ledger, store: FakeLedgerStore) -> None:
    await sent(ledger, record())
    ledger.discard("p1")
    await until(lambda: not store.rows)
    assert store.bodies == {}


async def test_a_server_that_gives_an_id_of_its_own_moves_the_row(
    ledger: Ledger, store: FakeLedgerStore
) -> None:
    await sent(ledger, record("ours"))
    ledger.confirm("ours", answered_id="theirs")
    await until(lambda: store.rows.keys() == {"theirs"})


async def test_a_restart_finds_everything_again(
    ledger: Ledger, journal: Journal, store: FakeLedgerStore, clock: FakeClock
) -> None:
    for number, prompt_id in enumerate(("done", "running", "doubtful"), start=1):
        await sent(ledger, record(prompt_id, position=number))
    ledger.confirm("done")
    ledger.end("done", Outcome.ERROR)
    ledger.confirm("running")
    ledger.begin("running")
    await journal.aclose()

    again = Ledger(clock, Journal(store, clock))
    await again.load()
    assert again.of_user(ALICE.key) == ledger.of_user(ALICE.key)
    assert [found.prompt_id for found in again.unfinished()] == ["running"]
    assert [found.prompt_id for found in again.doubtful()] == ["doubtful"]
    assert await again.body("running") == b"body", "what a key unlocks is not stored"
    assert again.next_number() == 4
    assert isinstance(again.reserve(record("doubtful")), InFlight)
    assert again.reserve(record("doubtful", BOB.key)) == Foreign()


# -- ids that only the database knows


async def test_an_id_that_memory_has_forgotten_belongs_to_its_user_still(
    ledger: Ledger, store: FakeLedgerStore
) -> None:
    old = record(position=7, outcome=Outcome.DONE, ended_at=START)
    store.rows["p1"] = LedgerRow(old)
    assert await sent(ledger, record(position=9)) == Same(old)
    assert await sent(ledger, record(user=BOB.key)) == Foreign()
    assert store.rows["p1"] == LedgerRow(old)
    assert store.bodies == {}
    assert ledger.doubtful() == []


async def test_an_id_that_another_gateway_has_just_sent_is_on_its_way(
    ledger: Ledger, store: FakeLedgerStore
) -> None:
    store.rows["p1"] = LedgerRow(record(position=7), is_confirmed=False)
    assert await sent(ledger, record(position=9)) == InFlight(None)


# -- outages


async def test_a_database_that_is_away_costs_one_short_wait_and_loses_nothing(
    ledger: Ledger, store: FakeLedgerStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_down = True
    began_s = perf_counter()
    for number in range(20):
        given = record(f"p{number}", position=number)
        assert await sent(ledger, given) == New()
        ledger.confirm(given.prompt_id)
        ledger.end(given.prompt_id, Outcome.DONE)
        ledger.keep_entry(given.prompt_id, {"outputs": given.prompt_id})
    assert perf_counter() - began_s < 20 * QUICK_S
    assert await ledger.entry("p3") == {"outputs": "p3"}
    assert len(await ledger.entries(ALICE.key, limit=100)) == 20
    await clock.advance(20)
    store.is_down = False
    await clock.advance(10)
    await until(lambda: len(store.kept) == 20)
    assert all(row.is_confirmed and row.record.is_finished for row in store.rows.values())
    assert sum("kept in memory" in line for line in caplog.messages) == 1
    given = record("after", position=50)
    assert await sent(ledger, given) == New()
    assert store.rows["after"] == LedgerRow(given, is_confirmed=False), "it is waited for again"


async def test_a_prompt_that_came_and_went_during_an_outage_is_not_written(
    ledger: Ledger, store: FakeLedgerStore, clock: FakeClock
) -> None:
    store.is_down = True
    for prompt_id in ("refused", "accepted"):
        await sent(ledger, record(prompt_id))
    ledger.discard("refused")
    ledger.confirm("accepted")
    store.is_down = False
    await clock.advance(10)
    await until(lambda: store.rows)
    assert store.rows.keys() == {"accepted"}


async def test_a_commit_whose_answer_was_lost_is_no_conflict_with_itself(
    ledger: Ledger, store: FakeLedgerStore, clock: FakeClock
) -> None:
    store.lost_answers = 1
    assert await sent(ledger, record()) == New()
    ledger.confirm("p1")
    ledger.end("p1", Outcome.DONE)
    await clock.advance(10)
    await until(lambda: store.rows["p1"].record.is_finished)
    assert store.bodies == {}


async def test_what_somebody_else_has_under_the_id_is_never_overwritten(
    ledger: Ledger, store: FakeLedgerStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Two gateways, an outage, and the same id at both: the database keeps the first."""
    store.is_down = True
    assert await sent(ledger, record(user=ALICE.key)) == New()
    ledger.confirm("p1")
    theirs = LedgerRow(record(user=BOB.key, position=5))
    store.rows["p1"], store.is_down = theirs, False
    await clock.advance(10)
    await until(lambda: "stored for another" in caplog.text)
    ledger.end("p1", Outcome.DONE)
    ledger.keep_entry("p1", {"outputs": "alice's"})
    assert await sent(ledger, record("p2")) == New()
    assert store.rows["p1"] == theirs
    assert store.kept == {}


async def test_one_value_that_cannot_be_stored_harms_no_other(
    ledger: Ledger, store: FakeLedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.refused = {"p1"}
    await asyncio.gather(*(sent(ledger, record(f"p{number}")) for number in range(4)))
    assert store.rows.keys() == {"p0", "p2", "p3"}
    assert "one change of the ledger cannot be stored" in caplog.text


async def test_a_store_that_breaks_in_another_way_is_tried_again(
    ledger: Ledger,
    journal: Journal,
    store: FakeLedgerStore,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_keep: int) -> int:
        raise KeyError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(store, "prune", fail)
        await clock.advance(PRUNE_INTERVAL_S)
        await sent(ledger, record())
        await until(lambda: "could not be written once" in caplog.text)
    await clock.advance(10)
    assert await sent(ledger, record("p2")) == New()
    await until(lambda: "p2" in store.rows)


async def test_entries_that_wait_for_a_database_are_bounded(ledger: Ledger, store: FakeLedgerStore) -> None:
    store.is_down = True
    for number in range(MAX_PENDING_ENTRIES + 5):
        ledger.accept(record(f"p{number}"))
        ledger.keep_entry(f"p{number}", {})
    found = [await ledger.entry(f"p{number}") for number in (0, 4, 5)]
    assert found == [None, None, {}]


async def test_what_is_left_is_written_at_the_end_or_given_up_soon(
    store: FakeLedgerStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for is_down in (False, True):
        journal = Journal(store, clock, linger_s=10)
        journal.start()
        journal.note(LedgerRow(record(f"down: {is_down}")))
        journal.hide(Hiding(ALICE.key, None, START))
        store.is_down = is_down
        await journal.aclose()
        await journal.aclose()
    assert store.rows.keys() == {"down: False"}
    assert "1 changes of the ledger could not be written" in caplog.text


# -- reads


async def test_what_is_not_written_yet_is_read_too(store: FakeLedgerStore, clock: FakeClock) -> None:
    journal = Journal(store, clock)
    store.rows["p1"] = LedgerRow(record())
    store.bodies["p1"], store.kept["p1"] = b"stored", {"outputs": "stored"}
    assert await journal.body("p1") == b"stored"
    assert await journal.entry("p1") == {"outputs": "stored"}
    journal.keep_entry("p1", {"outputs": "new"})
    journal.drop_body("p1")
    assert await journal.body("p1") is None
    assert await journal.entry("p1") == {"outputs": "new"}


async def test_reads_of_a_database_that_is_away_find_nothing_and_say_so(
    store: FakeLedgerStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(clock, Journal(store, clock))
    store.is_down = True
    ledger.accept(record("p1"))
    with pytest.raises(StoreUnavailable):
        await ledger.body("p1")
    assert await ledger.entry("old") is None
    assert await ledger.recall("old") is None
    assert await ledger.entries(ALICE.key, limit=9) == []
    assert caplog.text.count("cannot be read") == 3


async def test_a_history_that_was_cleared_stays_so_in_the_database(
    ledger: Ledger, store: FakeLedgerStore, clock: FakeClock
) -> None:
    old = record("old", outcome=Outcome.DONE, ended_at=START - timedelta(days=1))
    store.rows["old"], store.kept["old"] = LedgerRow(old), {"outputs": "old"}
    ledger.accept(record("p1"))
    ledger.end("p1", Outcome.DONE)
    ledger.keep_entry("p1", {"outputs": "p1"})
    assert [found.prompt_id for found, _ in await ledger.entries(ALICE.key, limit=9)] == ["p1", "old"]
    ledger.forget(ALICE.key)
    assert await ledger.entry("p1") is None
    await until(lambda: all(row.record.is_hidden for row in store.rows.values()))
    assert await ledger.entries(ALICE.key, limit=9) == []
    assert store.rows.keys() == {"old", "p1"}


async def test_the_oldest_prompts_are_removed_every_hour(
    store: FakeLedgerStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    journal = Journal(store, clock, wait_s=QUICK_S, linger_s=QUICK_S, keep_prompts=2)
    journal.start()
    ledger = Ledger(clock, journal)
    done = record(outcome=Outcome.DONE, ended_at=START)
    store.rows = {
        f"old{number}": LedgerRow(replace(done, prompt_id=f"old{number}", position=number))
        for number in range(5)
    }
    await sent(ledger, record("p1", position=10**6))
    assert store.calls["prune"] == 0
    await clock.advance(PRUNE_INTERVAL_S)
    await sent(ledger, record("p2", position=10**6 + 1))
    await until(lambda: store.calls["prune"] == 1)
    await until(lambda: "3 old prompts were removed" in caplog.text)
    await journal.aclose()
