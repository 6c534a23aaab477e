"""What is particular to one database, to opening it, and to its schema."""

import asyncio
import socket
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from comfy_gateway.adapters.sql import open_store
from comfy_gateway.adapters.sql.engine import make_engine, read_url
from comfy_gateway.adapters.sql.tables import metadata
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.life.session import Session, State
from comfy_gateway.core.people.users import IdKind, UserId

SESSION = Session(UserId(IdKind.NAMED, "alice"), State.REQUESTED, datetime(2026, 11, 23, tzinfo=UTC))


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "no database URL"),
        ("gateway.db", "no database URL"),
        ("mysql+aiomysql://u:secret@h/d", "has to begin"),
        ("postgresql+psycopg2://u:secret@h/d", "has to begin"),
        ("sqlite+aiosqlite://", "file"),
        ("sqlite+aiosqlite:///:memory:", "file"),
    ],
)
async def test_a_url_that_cannot_be_used_is_said_without_its_password(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        await open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////x/y.db", "sqlite+aiosqlite"),
        ("postgres://u@h/d", "postgresql+asyncpg"),
        ("postgresql://u@h/d", "postgresql+asyncpg"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg"),
    ],
)
def test_the_driver_is_added_where_it_was_left_out(url: str, driver: str) -> None:
    assert read_url(url).drivername == driver


async def test_nobody_else_may_read_the_database_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "gateway.db"
    store = await open_store(sqlite_url(path))
    await store.save_session(SESSION)
    beside = sorted(file.name for file in path.parent.iterdir())
    assert beside == ["gateway.db", "gateway.db-shm", "gateway.db-wal"]
    assert {mode_of(file) for file in path.parent.iterdir()} == {0o600}
    assert mode_of(path.parent) == 0o700
    await store.aclose()


async def test_a_database_file_with_a_looser_mode_is_tightened(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.touch(mode=0o644)
    await (await open_store(sqlite_url(path))).aclose()
    assert mode_of(path) == 0o600


async def test_readers_and_the_writer_of_sqlite_do_not_block_each_other(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    store = await open_store(sqlite_url(path), timeout_s=2)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
        await store.save_session(SESSION)
        assert reader.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
    await store.aclose()


async def test_a_file_that_is_no_database_is_said_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(b"my diary, and certainly no database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await open_store(sqlite_url(path))
    assert path.read_bytes().startswith(b"my diary")


async def test_a_place_where_no_file_can_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable) as caught:
        await open_store(sqlite_url(tmp_path / "state" / "gateway.db"))
    assert str(caught.value) == "the database does not answer: File exists", "the system's words, and no path"


async def test_a_server_that_is_not_there_is_said_without_the_password() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql+asyncpg://gateway:hunter2@127.0.0.1:{closed.getsockname()[1]}/gateway"
    with pytest.raises(StoreUnavailable) as caught:
        await open_store(url, timeout_s=2)
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+asyncpg://gateway@127.0.0.1:{silent.getsockname()[1]}/gateway"
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await open_store(url, timeout_s=0.5)


async def test_the_migrations_end_at_the_tables_that_the_queries_use(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "gateway.db")
    await (await open_store(url)).aclose()

    def differences(connection: Connection) -> list[object]:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), metadata)
        return found

    engine = make_engine(read_url(url), 10)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
