"""Connections to the two databases, set up so that they behave alike."""

import os
import stat
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

MAX_LOCK_WAIT_S: Final = 3.0
"""How long SQLite waits for another process that writes."""

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


def read_url(url: str) -> URL:
    """The URL with its driver. Raises ValueError, which does not repeat it, for any other database."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("is no database URL") from None
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.drivername not in _DRIVERS.values():
        raise ValueError("has to begin with sqlite+aiosqlite:/// or postgresql+asyncpg://")
    if parsed.drivername == "sqlite+aiosqlite" and parsed.database in {None, "", ":memory:"}:
        raise ValueError("needs a file: state in memory is no state")
    return parsed


def make_engine(url: URL, timeout_s: float) -> AsyncEngine:
    """An engine whose waits for a connection, a lock or an answer end within ``timeout_s``."""
    if url.get_backend_name() == "postgresql":
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_timeout=timeout_s,
            connect_args={
                "timeout": timeout_s,
                "command_timeout": timeout_s,
                "server_settings": {"application_name": "comfy-gateway", "timezone": "UTC"},
            },
        )
    # One connection: SQLite has one writer, and a queue in the pool is fairer than its busy handler, which
    # gives up before the caller does, so that the caller learns why. It cannot be interrupted: keep it brief.
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        pool_timeout=timeout_s,
        connect_args={"timeout": min(timeout_s * 0.8, MAX_LOCK_WAIT_S)},
    )
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_immediately)
    return engine


def make_direct_engine(url: URL, timeout_s: float) -> Engine | None:
    """An engine for whole transactions in one thread; None for a database that needs no thread.

    The asynchronous driver of SQLite hands each statement to a thread and waits, which costs more than the statement.
    """
    if url.get_backend_name() == "postgresql":
        return None
    engine = create_engine(
        url.set(drivername="sqlite"),
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        pool_timeout=timeout_s,
        connect_args={"timeout": min(timeout_s * 0.8, MAX_LOCK_WAIT_S), "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_immediately)
    return engine


def make_reading_engine(url: URL, timeout_s: float) -> AsyncEngine | None:
    """An engine whose connections only read, beside the one that writes; None where one engine does both.

    With SQLite's write-ahead log they see the last commit and neither wait for the writer nor hold it up.
    """
    if url.get_backend_name() == "postgresql":
        return None
    engine = create_async_engine(
        url, hide_parameters=True, pool_size=2, max_overflow=0, pool_timeout=timeout_s
    )
    event.listen(engine.sync_engine, "connect", _set_up_reader)
    return engine


def prepare_file(url: URL) -> None:
    """Make the SQLite file with mode 0600, or tighten it; SQLite gives its side files the same. Else nothing.

    Reads and writes the disk. Raises OSError.
    """
    if url.get_backend_name() != "sqlite" or url.database is None:
        return
    path = Path(url.database)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.chmod(mode & ~0o077)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions begin too late for DDL and for reads; ``_begin_immediately`` begins ours.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _set_up_reader(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _begin_immediately(connection: Connection) -> None:
    """Take the write lock first: a transaction that reads and then writes can otherwise not be waited for."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
