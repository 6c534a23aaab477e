"""One database, opened and brought to the newest schema; the stores of this package share it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from comfy_gateway.adapters.sql.engine import (
    make_direct_engine,
    make_engine,
    make_reading_engine,
    prepare_file,
    read_url,
)
from comfy_gateway.adapters.sql.migrate import migrate
from comfy_gateway.core.errors import StoreUnavailable

DEFAULT_TIMEOUT_S: Final = 10.0

_OUR_FAULT: Final = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
"""Errors of the driver that say something about our queries, not about the database."""


async def open_database(url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> "Database":
    """The database, brought to the newest schema first.

    Raises ValueError that says what is wrong with the URL, and StoreUnavailable when the database does not
    answer, cannot be read, or was written by a newer gateway.
    """
    parsed = read_url(url)
    try:
        await asyncio.to_thread(prepare_file, parsed)
        await asyncio.to_thread(migrate, parsed, timeout_s)
    except CommandError as error:
        raise StoreUnavailable("the database was written by a newer version of the gateway") from error
    except (exc.SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _unavailable(error) from error
    engine = make_engine(parsed, timeout_s)
    reader = make_reading_engine(parsed, timeout_s) or engine
    return Database(engine, reader, make_direct_engine(parsed, timeout_s), timeout_s=timeout_s)


class Database:
    """Transactions that end in time. All of them raise StoreUnavailable when the database does not answer."""

    def __init__(
        self, engine: AsyncEngine, reader: AsyncEngine, direct: Engine | None, *, timeout_s: float
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._direct = direct
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._timeout_s = timeout_s
        self._is_closed = False
        self.insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[engine.dialect.name]
        """The dialect's own, which knows ``on_conflict_do_…``."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Reads and writes; committed at the end of the block, rolled back by an exception."""
        async with self._bounded(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Reads only, and keeps nobody from writing however long it takes."""
        async with self._bounded(self._reader) as connection:
            yield connection

    async def at_once[T](self, work: Callable[[Connection], T]) -> T:
        """One transaction without any wait between its statements, which is the quickest way to write.

        ``work`` may run in a thread. Where the time is up it may still be written: nobody knows then.
        """
        if self._direct is None:
            async with self.transaction() as connection:
                return await connection.run_sync(work)
        direct, loop = self._direct, asyncio.get_running_loop()

        def run() -> T:
            with direct.begin() as connection:
                return work(connection)

        with self._translated():
            async with asyncio.timeout(self._timeout_s):
                return await loop.run_in_executor(self._thread, run)

    async def aclose(self) -> None:
        """Close all connections. Later calls raise StoreUnavailable."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._engine.dispose()
        await self._reader.dispose()
        if self._direct is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._direct.dispose)
        self._thread.shutdown(wait=False)

    @asynccontextmanager
    async def _bounded(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        with self._translated():
            async with asyncio.timeout(self._timeout_s), engine.begin() as connection:
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Says StoreUnavailable for what a database says that does not answer."""
        if self._is_closed:
            raise StoreUnavailable("the database is closed")
        try:
            yield
        except exc.DBAPIError as error:
            if isinstance(error, _OUR_FAULT) and not error.connection_invalidated:
                raise
            raise _unavailable(error) from error
        except (exc.TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> StoreUnavailable:
    """Says what the driver said, on one line; parameters and addresses are left out."""
    reason = type(error).__name__
    if isinstance(error, exc.DBAPIError):
        reason = " ".join(str(error.orig).split())[:200]
    elif isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)  # its own text may hold an address
    return StoreUnavailable(f"the database does not answer: {reason}")
