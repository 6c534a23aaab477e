"""The promises of ``core.ports.SessionStore``, over SQLite and PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from comfy_gateway.adapters.sql import open_store
from comfy_gateway.adapters.sql.engine import make_engine, read_url
from comfy_gateway.core.errors import StaleRecord, StoreUnavailable
from comfy_gateway.core.life.eta import Start
from comfy_gateway.core.life.session import Pod, Session, State
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import SessionStore
from tests.contract.postgres import PostgresServer

ALICE = UserId(IdKind.NAMED, "alice")
NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
NAME = "comfy-gw-alice0a1b2c3d-a1"
ORDERED = Pod(name=NAME, attempt="a1", ordered_at=NOW - timedelta(minutes=3))
KNOWN = replace(ORDERED, pod_id="pod1", gpu_type="RTX 4090", cost_per_hour_usd=0.69)


@dataclass
class Database:
    """One empty database, and a way around the store for looking into it and for holding it up."""

    url: str
    rows: Callable[[str], Awaitable[list[dict[str, Any]]]]
    """Rows of a query, by plain SQL."""
    held_up: Callable[[], AbstractAsyncContextManager[None]]
    """While the block runs nobody else gets at the sessions."""


def sqlite_database(path: Path) -> Database:
    async def rows(query: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    @asynccontextmanager
    async def held_up() -> AsyncIterator[None]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield

    return Database(f"sqlite+aiosqlite:///{path}", rows, held_up)


async def postgres_database(server: PostgresServer) -> Database:
    name = await server.create_database()

    async def rows(query: str) -> list[dict[str, Any]]:
        connection = await server.connect(name)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    @asynccontextmanager
    async def held_up() -> AsyncIterator[None]:
        connection = await server.connect(name)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE sessions, pods IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()

    return Database(server.url(name), rows, held_up)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return sqlite_database(tmp_path / "state" / "gateway.db")
    return await postgres_database(request.getfixturevalue("postgres_server"))


@asynccontextmanager
async def opened(database: Database, *, timeout_s: float = 10.0) -> AsyncIterator[SessionStore]:
    store = await open_store(database.url, timeout_s=timeout_s)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(database: Database) -> AsyncIterator[SessionStore]:
    async with opened(database) as ready:
        yield ready


def session(state: State = State.BOOTING, pod: Pod | None = KNOWN, **changes: Any) -> Session:
    return replace(Session(ALICE, state, NOW, pod), **changes)


class TestSave:
    async def test_a_new_database_holds_no_sessions(self, store: SessionStore) -> None:
        assert list(await store.load_sessions()) == []

    @pytest.mark.parametrize(
        "given",
        [
            session(State.REQUESTED, None),
            session(State.CREATING, ORDERED),
            session(State.COOLING, None),
            *(
                session(state)
                for state in State
                if state not in {State.SHARED, State.REQUESTED, State.CREATING, State.COOLING}
            ),
        ],
        ids=lambda given: str(given.state),
    )
    async def test_a_session_comes_back_as_it_was(self, database: Database, given: Session) -> None:
        async with opened(database) as store:
            saved = await store.save_session(given)
            assert saved == replace(given, version=1)
        async with opened(database) as store:
            assert list(await store.load_sessions()) == [saved]

    @pytest.mark.parametrize(
        "name",
        ["x", "Ann O'Hara", 'a"; DROP TABLE pods; --', "100%", "a_b", "back\\slash", "a:b", "x" * 128],
    )
    async def test_users_of_any_name_and_kind_are_kept_apart(self, store: SessionStore, name: str) -> None:
        users = [UserId(kind, name) for kind in IdKind]
        for user in users:
            await store.save_session(Session(user, State.REQUESTED, NOW))
        assert {loaded.user for loaded in await store.load_sessions()} == set(users)

    async def test_times_come_back_as_utc(self, store: SessionStore) -> None:
        elsewhere = NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
        await store.save_session(session(since=elsewhere, pod=replace(KNOWN, ordered_at=elsewhere)))
        (loaded,) = await store.load_sessions()
        assert loaded.pod is not None
        for time in (loaded.since, loaded.pod.ordered_at):
            assert time == NOW
            assert time.utcoffset() == timedelta(0)

    async def test_versions_count_the_saves(self, store: SessionStore) -> None:
        first = await store.save_session(session(State.CREATING, ORDERED))
        second = await store.save_session(replace(first, state=State.BOOTING, pod=KNOWN))
        assert (first.version, second.version) == (1, 2)
        assert list(await store.load_sessions()) == [second]

    async def test_who_holds_an_old_version_writes_nothing(
        self, store: SessionStore, database: Database
    ) -> None:
        first = await store.save_session(session(State.CREATING, ORDERED))
        second = await store.save_session(replace(first, state=State.BOOTING, pod=KNOWN))
        other = replace(ORDERED, name="comfy-gw-alice-other", attempt="other")
        for stale in (first, replace(first, version=0), replace(first, version=9)):
            with pytest.raises(StaleRecord):
                await store.save_session(replace(stale, state=State.READY, pod=other))
        assert list(await store.load_sessions()) == [second]
        assert [row["name"] for row in await database.rows("SELECT * FROM pods")] == [NAME]
        assert not await store.knows_pod(other.name)

    async def test_a_version_of_a_session_that_was_never_stored_is_stale(self, store: SessionStore) -> None:
        with pytest.raises(StaleRecord):
            await store.save_session(session(version=3))
        assert not await store.knows_pod(NAME)

    async def test_of_two_gateways_that_save_at_once_one_wins(self, database: Database) -> None:
        async with opened(database) as ours, opened(database) as theirs:
            for version in (0, 1, 2):
                given = session(State.BOOTING, version=version)
                outcomes = await asyncio.gather(
                    *(store.save_session(given) for store in (ours, theirs) for _ in range(5)),
                    return_exceptions=True,
                )
                won = [outcome for outcome in outcomes if isinstance(outcome, Session)]
                lost = [outcome for outcome in outcomes if isinstance(outcome, StaleRecord)]
                assert ([one.version for one in won], len(lost)) == ([version + 1], 9)

    async def test_many_users_save_at_once(self, store: SessionStore) -> None:
        users = [UserId(IdKind.NAMED, f"user-{index}") for index in range(60)]
        await asyncio.gather(
            *(
                store.save_session(
                    Session(user, State.CREATING, NOW, replace(ORDERED, name=f"comfy-gw-u{index}-a"))
                )
                for index, user in enumerate(users)
            )
        )
        assert {loaded.user for loaded in await store.load_sessions()} == set(users)

    async def test_a_time_without_a_zone_is_refused(self, store: SessionStore) -> None:
        with pytest.raises(Exception, match="zone"):
            await store.save_session(session(since=NOW.replace(tzinfo=None)))
        assert list(await store.load_sessions()) == []


class TestShared:
    async def test_a_session_back_at_shared_is_not_loaded(self, store: SessionStore) -> None:
        saved = await store.save_session(session())
        await store.save_session(replace(saved, state=State.SHARED, pod=None))
        assert list(await store.load_sessions()) == []

    async def test_its_versions_go_on_when_it_stays_in_memory(self, store: SessionStore) -> None:
        saved = await store.save_session(session())
        shared = await store.save_session(replace(saved, state=State.SHARED, pod=None))
        again = await store.save_session(replace(shared, state=State.REQUESTED))
        assert again.version == 3

    async def test_its_versions_go_on_when_the_user_comes_again_unknown(self, store: SessionStore) -> None:
        saved = await store.save_session(session())
        await store.save_session(replace(saved, state=State.SHARED, pod=None))
        again = await store.save_session(session(State.REQUESTED, None, version=0))
        assert again.version == 3
        with pytest.raises(StaleRecord):
            await store.save_session(replace(saved, state=State.READY))
        with pytest.raises(StaleRecord):
            await store.save_session(session(State.REQUESTED, None, version=0))
        assert list(await store.load_sessions()) == [again]


class TestPods:
    async def test_a_pod_is_known_from_the_moment_it_was_ordered(self, store: SessionStore) -> None:
        assert not await store.knows_pod(NAME)
        await store.save_session(session(State.CREATING, ORDERED))
        assert await store.knows_pod(NAME)
        for other in (NAME.upper(), NAME[:-1], "%", NAME.replace("-", "_"), ""):
            assert not await store.knows_pod(other)

    async def test_a_pod_is_still_known_after_its_end(self, database: Database) -> None:
        async with opened(database) as store:
            saved = await store.save_session(session())
            await store.record_pod_end(ALICE, NAME, cause="idle", at=NOW)
            await store.save_session(replace(saved, state=State.SHARED, pod=None))
        async with opened(database) as store:
            assert await store.knows_pod(NAME)

    async def test_the_history_keeps_in_step_with_the_session(
        self, store: SessionStore, database: Database
    ) -> None:
        saved = await store.save_session(session(State.CREATING, ORDERED))
        (row,) = await database.rows("SELECT * FROM pods")
        assert (row["user_key"], row["attempt"], row["pod_id"]) == ("named:alice", "a1", None)
        saved = await store.save_session(replace(saved, state=State.BOOTING, pod=KNOWN))
        (row,) = await database.rows("SELECT * FROM pods")
        assert (row["pod_id"], row["gpu_type"], row["cost_per_hour_usd"]) == ("pod1", "RTX 4090", 0.69)
        assert row["ready_at"] is None
        for state in (State.READY, State.DRAINING, State.READY):
            saved = await store.save_session(
                replace(saved, state=state, since=saved.since + timedelta(hours=1))
            )
        (row,) = await database.rows("SELECT * FROM pods")
        assert moment(row["ready_at"]) == NOW + timedelta(hours=1)

    async def test_the_first_ending_of_a_pod_stays(self, store: SessionStore, database: Database) -> None:
        await store.save_session(session())
        await store.record_pod_end(ALICE, NAME, cause="idle", at=NOW)
        await store.record_pod_end(ALICE, NAME, cause="vanished", at=NOW + timedelta(hours=1))
        (row,) = await database.rows("SELECT * FROM pods")
        assert (row["cause"], moment(row["ended_at"])) == ("idle", NOW)

    async def test_the_end_of_a_pod_that_is_not_the_users_closes_nothing(
        self, store: SessionStore, database: Database
    ) -> None:
        await store.save_session(session())
        await store.record_pod_end(UserId(IdKind.CLIENT, "alice"), NAME, cause="idle", at=NOW)
        await store.record_pod_end(ALICE, "comfy-gw-other-a", cause="idle", at=NOW)
        (row,) = await database.rows("SELECT * FROM pods")
        assert (row["cause"], row["ended_at"]) == (None, None)
        assert not await store.knows_pod("comfy-gw-other-a")


class TestStrays:
    async def test_the_first_sight_stays_also_for_the_next_life(self, database: Database) -> None:
        async with opened(database) as store:
            assert await store.first_sight("pod1", at=NOW) == NOW
            assert await store.first_sight("pod1", at=NOW + timedelta(hours=1)) == NOW
        async with opened(database) as store:
            assert await store.first_sight("pod1", at=NOW + timedelta(hours=2)) == NOW

    async def test_all_but_some_are_forgotten(self, store: SessionStore) -> None:
        later = NOW + timedelta(hours=1)
        for pod_id in ("pod1", "pod2", "pod3"):
            await store.first_sight(pod_id, at=NOW)
        await store.forget_sights(but={"pod2"})
        assert [await store.first_sight(pod_id, at=later) for pod_id in ("pod1", "pod2")] == [later, NOW]
        await store.forget_sights(but=())
        assert await store.first_sight("pod2", at=later) == later


def moment(stored: Any) -> datetime:
    """A time as plain SQL gives it back: text from SQLite."""
    time = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    assert isinstance(time, datetime)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


class TestUnavailable:
    async def test_a_database_that_does_not_answer_is_said_in_time_and_used_again(
        self, database: Database
    ) -> None:
        async with opened(database) as first:
            saved = await first.save_session(session())
        async with opened(database, timeout_s=1.0) as store:
            async with database.held_up(), asyncio.timeout(8):
                calls: list[Awaitable[Any]] = [
                    store.load_sessions(),
                    store.save_session(replace(saved, state=State.READY)),
                    store.record_pod_end(ALICE, NAME, cause="idle", at=NOW),
                    store.knows_pod(NAME),
                ]
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 4
            assert list(await store.load_sessions()) == [saved]
            assert (await store.save_session(replace(saved, state=State.READY))).version == 2

    async def test_a_caller_that_gives_up_leaves_a_store_that_works(self, database: Database) -> None:
        async with opened(database) as store:
            saved = await store.save_session(session())
            async with database.held_up():
                waiting = asyncio.ensure_future(store.load_sessions())
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting, 0.3)
            assert list(await store.load_sessions()) == [saved]

    async def test_a_record_that_cannot_be_stored_is_not_blamed_on_the_database(
        self, store: SessionStore
    ) -> None:
        unnamed: Any = None
        with pytest.raises(IntegrityError):
            await store.save_session(session(pod=replace(KNOWN, attempt=unnamed)))
        assert list(await store.load_sessions()) == []

    async def test_a_closed_store_is_unavailable(self, store: SessionStore) -> None:
        await store.aclose()
        await store.aclose()
        with pytest.raises(StoreUnavailable):
            await store.load_sessions()

    async def test_a_database_of_a_newer_gateway_is_left_alone(self, database: Database) -> None:
        async with opened(database) as store:
            await store.save_session(session())
        await write(database, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreUnavailable, match="newer"):
            await open_store(database.url)
        assert len(await database.rows("SELECT * FROM sessions")) == 1


async def write(database: Database, statement: str) -> None:
    """Change the database behind the store's back."""
    engine = make_engine(read_url(database.url), 10)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(statement)
    await engine.dispose()


class TestOpen:
    async def test_gateways_that_open_at_once_make_one_schema(self, database: Database) -> None:
        stores = await asyncio.gather(*(open_store(database.url) for _ in range(4)))
        for store in stores:
            await store.aclose()
        assert len(await database.rows("SELECT * FROM alembic_version")) == 1


async def test_starts_are_those_pods_that_became_ready_newest_last(store: SessionStore) -> None:
    for number, (took_s, becomes_ready) in enumerate(
        [(60, True), (None, False), (90, True), (-5, True), (120, True)]
    ):
        user = UserId(IdKind.NAMED, f"user{number}")
        pod = replace(KNOWN, name=f"{NAME}x{number}", ordered_at=NOW + timedelta(minutes=number))
        booting = Session(user, State.BOOTING, pod.ordered_at, pod)
        saved = await store.save_session(booting)
        if becomes_ready and took_s is not None:
            ready = replace(saved, state=State.READY, since=pod.ordered_at + timedelta(seconds=took_s))
            await store.save_session(ready)
    assert list(await store.starts(newest=9)) == [Start("RTX 4090", s) for s in (60.0, 90.0, 120.0)]
    assert list(await store.starts(newest=2)) == [Start("RTX 4090", s) for s in (90.0, 120.0)]
