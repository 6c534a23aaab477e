"""The promises of ``core.ports.LedgerStore``, over SQLite, PostgreSQL and the fake that other tests use."""

import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.sql import Database, SqlLedgerStore, open_database
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.ports import LedgerStore
from comfy_gateway.core.prompts.prompts import Hiding, LedgerChange, LedgerRow, Outcome, PromptRecord
from comfy_gateway.service.prompts.journal import Journal
from comfy_gateway.service.prompts.ledger import Ledger, New
from tests.conditions import wait_for
from tests.contract.postgres import PostgresServer
from tests.fakes.ledger import FakeLedgerStore

ALICE, BOB = "name:alice", "name:bob"
NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
NEW = PromptRecord("p1", ALICE, "tab", "duty-0", number=1, position=1, body_sha256="ab" * 32, accepted_at=NOW)


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


async def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of the kind that the fixture's parameter says."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(await server.create_database())


@pytest.fixture(params=["fake", *DATABASES])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LedgerStore]:
    if request.param == "fake":
        yield FakeLedgerStore()
        return
    database = await open_database(await new_database(request, tmp_path))
    yield SqlLedgerStore(database)
    await database.aclose()


@pytest.fixture(params=DATABASES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_database(request, tmp_path)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = await open_database(url)
    yield opened
    await opened.aclose()


def ended(prompt_id: str, position: int, *, user: str | None = ALICE, after_s: float = 0) -> PromptRecord:
    at = NOW + timedelta(seconds=after_s or position)
    return replace(
        NEW, prompt_id=prompt_id, user_key=user, position=position, outcome=Outcome.DONE, ended_at=at
    )


def kept(record: PromptRecord) -> LedgerChange:
    """An ended prompt with its entry."""
    return LedgerChange(record.prompt_id, LedgerRow(record), entry={"outputs": {"of": record.prompt_id}})


async def ids(store: LedgerStore, user: str | None = ALICE, **narrowed: Any) -> list[str]:
    return [record.prompt_id for record, _ in await store.entries(user, **({"limit": 100} | narrowed))]


# -- rows


RECORDS = {
    "new": NEW,
    "of nobody": replace(NEW, user_key=None, sid=""),
    "everything": replace(
        NEW,
        outcome=Outcome.INTERRUPTED,
        number=-2.5,
        position=2**40,
        started_at=NOW + timedelta(seconds=1),
        ended_at=NOW + timedelta(seconds=2),
        replays=1,
        node_errors={"7": {"errors": ["é"], "cfg": math.inf}},
        is_hidden=True,
    ),
    **{str(outcome): replace(NEW, outcome=outcome) for outcome in Outcome},
}


@pytest.mark.parametrize("is_confirmed", [True, False])
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
async def test_a_row_comes_back_as_it_was(
    store: LedgerStore, record: PromptRecord, is_confirmed: bool
) -> None:
    row = LedgerRow(record, is_confirmed)
    assert not await store.write([LedgerChange("p1", row)])
    assert await store.find("p1") == row
    assert list(await store.load(10)) == [row]
    assert await store.find("p2") is None


async def test_a_later_row_replaces_the_earlier_one(store: LedgerStore) -> None:
    await store.write([LedgerChange("p1", LedgerRow(NEW, is_confirmed=False), is_new=True)])
    later = LedgerRow(replace(NEW, outcome=Outcome.RUNNING, backend_id="pod", replays=1))
    assert not await store.write([LedgerChange("p1", later)])
    assert await store.find("p1") == later


async def test_a_new_row_does_not_replace_one_that_is_there(store: LedgerStore) -> None:
    await store.write([LedgerChange("p1", LedgerRow(NEW), is_new=True, body=b"first")])
    other = replace(NEW, user_key=BOB)
    conflicts = await store.write(
        [
            LedgerChange("p1", LedgerRow(other, is_confirmed=False), is_new=True, body=b"second"),
            LedgerChange("p2", LedgerRow(replace(NEW, prompt_id="p2")), is_new=True, body=b"beside it"),
        ]
    )
    assert list(conflicts) == [LedgerRow(NEW)]
    assert await store.find("p1") == LedgerRow(NEW)
    assert await store.body("p1") == b"first"
    assert await store.body("p2") == b"beside it"


async def test_what_is_discarded_leaves_nothing_and_its_id_is_free(store: LedgerStore) -> None:
    await store.write([LedgerChange("p1", LedgerRow(ended("p1", 1)), body=b"body", entry={"a": 1})])
    await store.write([LedgerChange("p1", is_discarded=True), LedgerChange("p2", is_discarded=True)])
    assert await store.find("p1") is None
    assert await store.body("p1") is None
    assert await store.entry("p1") is None
    row = LedgerRow(replace(NEW, user_key=BOB), is_confirmed=False)
    assert not await store.write([LedgerChange("p1", row, is_new=True, is_discarded=True, body=b"new")])
    assert await store.find("p1") == row


async def test_what_is_for_an_unknown_prompt_is_passed_over(store: LedgerStore) -> None:
    assert not await store.write(
        [
            LedgerChange("unknown", body=b"body", entry={"a": 1}),
            LedgerChange("gone", is_body_done=True),
            LedgerChange("p1", LedgerRow(NEW)),
        ]
    )
    assert await store.entry("unknown") is None
    assert await store.find("p1") is not None


async def test_the_highest_position_is_remembered(store: LedgerStore) -> None:
    assert await store.highest_position() == 0
    await store.write([kept(ended("a", 7)), kept(ended("b", 3))])
    assert await store.highest_position() == 7


async def test_the_open_ones_and_the_newest_of_the_others_are_loaded(store: LedgerStore) -> None:
    doubtful = LedgerRow(replace(NEW, prompt_id="doubtful", position=2), is_confirmed=False)
    running = LedgerRow(replace(NEW, prompt_id="running", position=1, outcome=Outcome.RUNNING))
    changes = [LedgerChange(row.record.prompt_id, row) for row in (doubtful, running)]
    await store.write([*changes, *(kept(ended(f"p{number}", number)) for number in range(3, 9))])
    loaded = [row.record.prompt_id for row in await store.load(2)]
    assert loaded == ["running", "doubtful", "p7", "p8"]


async def test_many_changes_of_every_kind_go_into_one_transaction(store: LedgerStore) -> None:
    changes = [
        LedgerChange(
            f"p{number}",
            LedgerRow(ended(f"p{number}", number)),
            is_new=number % 2 == 0,
            body=b"body",
            entry={},
        )
        for number in range(200)
    ]
    assert not await store.write(changes)
    assert len(await store.load(1000)) == 200
    assert len(await ids(store, limit=1000)) == 200


# -- bodies


async def test_a_body_stays_until_it_is_done(store: LedgerStore) -> None:
    await store.write([LedgerChange("p1", LedgerRow(NEW), is_new=True, body=b"\x00\xff body")])
    assert await store.body("p1") == b"\x00\xff body"
    await store.write([LedgerChange("p1", LedgerRow(NEW))])
    assert await store.body("p1") == b"\x00\xff body"
    await store.write([LedgerChange("p1", is_body_done=True)])
    assert await store.body("p1") is None
    assert await store.body("unknown") is None


# -- entries


async def test_an_entry_comes_back_as_it_was(store: LedgerStore) -> None:
    entry = {
        "prompt": [1.5, "p1", {"1": {"inputs": {"seed": 2**64 - 1, "text": "é\ud800\x00"}}}, {}, ["9"]],
        "outputs": {"9": {"images": [{"filename": "a.png"}] * 1000, "cfg": [math.inf, None]}},
    }
    await store.write([LedgerChange("p1", LedgerRow(ended("p1", 1)), entry=entry)])
    assert await store.entry("p1") == entry
    await store.write([LedgerChange("p1", entry={"outputs": {}})])
    assert await store.entry("p1") == {"outputs": {}}
    assert await store.entry("unknown") is None


async def test_entries_come_last_ended_first_in_pages(store: LedgerStore) -> None:
    times = [3, 1, 2, 2, 9]
    records = [ended(f"p{number}", number, after_s=after_s) for number, after_s in enumerate(times)]
    await store.write([kept(record) for record in records])
    order = ["p4", "p0", "p3", "p2", "p1"]
    assert await ids(store) == order
    assert await ids(store, limit=2) == order[:2]
    for place, prompt_id in enumerate(order):
        before = records[int(prompt_id[1:])]
        assert await ids(store, before=before) == order[place + 1 :]
    assert [entry for _, entry in await store.entries(ALICE, limit=1)] == [{"outputs": {"of": "p4"}}]


async def test_entries_are_of_one_user_or_of_nobody(store: LedgerStore) -> None:
    records = [ended("a", 1), ended("b", 2, user=BOB), ended("n", 3, user=None)]
    await store.write([kept(record) for record in records])
    assert [await ids(store, user) for user in (ALICE, BOB, None, "name:eve")] == [["a"], ["b"], ["n"], []]


async def test_what_has_not_ended_or_has_no_entry_is_not_listed(store: LedgerStore) -> None:
    await store.write(
        [
            LedgerChange("p1", LedgerRow(NEW), entry={"outputs": {}}),
            LedgerChange("p2", LedgerRow(ended("p2", 2))),
        ]
    )
    assert await ids(store) == []


HIDINGS: dict[str, tuple[Sequence[Hiding], list[str]]] = {
    "one of them": ([Hiding(ALICE, frozenset({"a1"}), NOW + timedelta(hours=1))], ["a2"]),
    "all": ([Hiding(ALICE, None, NOW + timedelta(hours=1))], []),
    "what had ended by then": ([Hiding(ALICE, None, NOW + timedelta(seconds=1))], ["a2"]),
    "somebody else's": ([Hiding(BOB, frozenset({"a1", "a2"}), NOW + timedelta(hours=1))], ["a2", "a1"]),
    "nobody's": ([Hiding(None, None, NOW + timedelta(hours=1))], ["a2", "a1"]),
}


@pytest.mark.parametrize(("hidings", "left"), HIDINGS.values(), ids=HIDINGS.keys())
async def test_what_a_user_takes_out_is_not_shown_again(
    store: LedgerStore, hidings: Sequence[Hiding], left: list[str]
) -> None:
    records = [ended("a1", 1), ended("a2", 2), ended("b", 3, user=BOB)]
    await store.write([kept(record) for record in records[:2]])
    open_one = LedgerChange("open", LedgerRow(replace(NEW, prompt_id="open", position=9)))
    await store.write([kept(records[2]), open_one], hidings)
    assert await ids(store) == left
    assert (await store.entry("a1") is None) == ("a1" not in left)
    found = await store.find("open")
    assert found is not None
    assert not found.record.is_hidden


async def test_the_oldest_that_have_ended_are_removed(store: LedgerStore) -> None:
    await store.write(
        [
            LedgerChange("open", LedgerRow(replace(NEW, prompt_id="open", position=1)), body=b"body"),
            *(kept(ended(f"p{number}", number)) for number in range(2, 7)),
        ]
    )
    assert await store.prune(5) == 0
    assert await store.prune(2) == 3
    assert await ids(store) == ["p6", "p5"]
    assert await store.entry("p2") is None
    assert await store.body("open") == b"body"


# -- what only a database does


@asynccontextmanager
async def held_up(url: str) -> AsyncIterator[None]:
    """Somebody else has the tables for himself."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as file:
            file.execute("BEGIN EXCLUSIVE")
            yield
        return
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE prompts IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def test_everything_survives_a_restart(url: str, database: Database) -> None:
    record = ended("p1", 1)
    await SqlLedgerStore(database).write([kept(record)])
    again = await open_database(url)
    assert list(await SqlLedgerStore(again).entries(ALICE, limit=1)) == [(record, {"outputs": {"of": "p1"}})]
    await again.aclose()


@pytest.mark.parametrize(
    "sid", ["\x00", "\ud800", "x" * 2000], ids=["a null", "half a character", "too long"]
)
async def test_a_socket_id_that_no_page_makes_does_not_break_the_transaction(
    database: Database, sid: str
) -> None:
    store = SqlLedgerStore(database)
    await store.write([LedgerChange("p1", LedgerRow(replace(NEW, sid=sid)), is_new=True)])
    found = await store.find("p1")
    assert found is not None
    assert found.record.sid == ""


async def test_a_value_that_cannot_be_stored_is_no_outage_and_nothing_is_written(database: Database) -> None:
    store = SqlLedgerStore(database)
    good = LedgerChange("p1", LedgerRow(NEW), is_new=True)
    bad = LedgerChange("p2", LedgerRow(replace(NEW, prompt_id="p2", position=None)), is_new=True)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r".") as failure:
        await store.write([good, bad])
    assert not isinstance(failure.value, StoreUnavailable)
    assert await store.find("p1") is None


async def test_a_database_that_is_closed_does_not_answer(database: Database) -> None:
    store = SqlLedgerStore(database)
    await database.aclose()
    calls: list[Callable[[], Any]] = [
        lambda: store.write([]),
        lambda: store.load(1),
        lambda: store.find("p1"),
        lambda: store.entries(ALICE, limit=1),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            await call()


async def test_a_database_that_is_held_up_costs_a_prompt_a_bounded_wait_and_is_written_afterwards(
    url: str, database: Database
) -> None:
    clock = SystemClock()
    journal = Journal(SqlLedgerStore(database), clock, wait_s=0.3, linger_s=0.01)
    ledger = Ledger(clock, journal)
    journal.start()
    async with held_up(url):
        began_s = clock.monotonic()
        for number in range(1, 6):
            record = replace(NEW, prompt_id=f"p{number}", position=number)
            assert ledger.reserve(record) == New()
            assert await ledger.write_down(record, b"body", stored_body=b"body") == New()
            ledger.confirm(record.prompt_id)
        assert clock.monotonic() - began_s < 1.0
        ledger.end("p1", Outcome.DONE)
        ledger.keep_entry("p1", {"outputs": {}})

    async def all_written() -> bool:
        rows = await SqlLedgerStore(database).load(10)
        return len(rows) == 5 and all(row.is_confirmed for row in rows)

    await wait_for(all_written, "the rows", deadline_s=20.0)
    assert await ids(SqlLedgerStore(database)) == ["p1"]
    assert await SqlLedgerStore(database).body("p1") is None
    assert await SqlLedgerStore(database).body("p2") == b"body"
    await journal.aclose()


async def test_who_reads_a_history_holds_up_no_prompt(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'gateway.db'}", timeout_s=2)
    store = SqlLedgerStore(database)
    async with database.reading() as slow, database.reading() as other:
        for reader in (slow, other):
            await reader.exec_driver_sql("SELECT count(*) FROM prompts")
        await store.write([LedgerChange("p1", LedgerRow(NEW), is_new=True, body=b"body")])
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection:
        assert connection.execute("SELECT count(*) FROM prompt_bodies").fetchone() == (1,)
    await database.aclose()
