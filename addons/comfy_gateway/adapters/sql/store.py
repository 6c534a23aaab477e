"""``core.ports.SessionStore`` over SQLAlchemy."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import asyncpg
from alembic.util.exc import CommandError
from sqlalchemy import Row, exc, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from comfy_gateway.adapters.sql.engine import make_engine, prepare_file, read_url
from comfy_gateway.adapters.sql.migrate import migrate
from comfy_gateway.adapters.sql.tables import pods, sessions
from comfy_gateway.core.errors import StaleRecord, StoreUnavailable
from comfy_gateway.core.session import Pod, Session, State
from comfy_gateway.core.users import UserId

DEFAULT_TIMEOUT_S: Final = 10.0

_OUR_FAULT: Final = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
"""Errors of the driver that say something about our queries, not about the database."""


async def open_store(url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> "SqlSessionStore":
    """The store in that database, brought to the newest schema first.

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
    return SqlSessionStore(make_engine(parsed, timeout_s), timeout_s=timeout_s)


class SqlSessionStore:
    """Sessions and the history of pods in one database; every call is one transaction.

    A session that came back to SHARED keeps its row, so that its versions go on counting: whoever still holds
    an older version of it is stale for ever. Such a row counts as "not stored yet", for nobody loads it.
    """

    def __init__(self, engine: AsyncEngine, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._is_closed = False
        self._insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[engine.dialect.name]

    async def load_sessions(self) -> Sequence[Session]:
        """All sessions that are not plainly SHARED, by user."""
        query = (
            select(sessions, pods)
            .select_from(sessions.outerjoin(pods, sessions.c.pod_name == pods.c.name))
            .where(sessions.c.state != State.SHARED.value)
            .order_by(sessions.c.user_key)
        )
        async with self._transaction() as connection:
            return [_session_of(row) for row in await connection.execute(query)]

    async def save_session(self, session: Session) -> Session:
        """Write the session and its pod if ``version`` is the stored one; returns it with the next version.

        Raises StaleRecord, and writes nothing, when somebody else saved it meanwhile.
        """
        async with self._transaction() as connection:
            if session.pod is not None:
                await self._save_pod(connection, session, session.pod)
            version = await self._replace(connection, session)
            if version is None and session.version == 0:
                version = await self._add(connection, session)
            if version is None:
                raise StaleRecord(f"the session of {session.user.key} was saved by somebody else")
        return replace(session, version=version)

    async def record_pod_end(self, user: UserId, pod_name: str, *, cause: str, at: datetime) -> None:
        """Close the row of this pod. The first ending stays; an unknown pod is left unknown."""
        query = (
            update(pods)
            .where(pods.c.name == pod_name, pods.c.user_key == user.key, pods.c.ended_at.is_(None))
            .values(ended_at=at, cause=cause)
        )
        async with self._transaction() as connection:
            await connection.execute(query)

    async def knows_pod(self, pod_name: str) -> bool:
        """Whether a pod of that name was ever ordered by us."""
        async with self._transaction() as connection:
            found = await connection.scalar(select(pods.c.name).where(pods.c.name == pod_name))
        return found is not None

    async def aclose(self) -> None:
        """Close all connections. Later calls raise StoreUnavailable."""
        self._is_closed = True
        await self._engine.dispose()

    async def _save_pod(self, connection: AsyncConnection, session: Session, pod: Pod) -> None:
        insert = self._insert(pods).values(
            name=pod.name,
            user_key=session.user.key,
            attempt=pod.attempt,
            pod_id=pod.pod_id,
            gpu_type=pod.gpu_type,
            cost_per_hour_usd=pod.cost_per_hour_usd,
            ordered_at=pod.ordered_at,
            ready_at=session.since if session.state is State.READY else None,
        )
        new = insert.excluded
        await connection.execute(
            insert.on_conflict_do_update(
                index_elements=[pods.c.name],
                set_={
                    "pod_id": new.pod_id,
                    "gpu_type": new.gpu_type,
                    "cost_per_hour_usd": new.cost_per_hour_usd,
                    "ready_at": func.coalesce(pods.c.ready_at, new.ready_at),
                },
            )
        )

    async def _replace(self, connection: AsyncConnection, session: Session) -> int | None:
        """The new version, or None when no stored row is the one that the session replaces."""
        is_replaced = sessions.c.version == session.version
        if session.version == 0:
            is_replaced = or_(is_replaced, sessions.c.state == State.SHARED.value)
        query = (
            update(sessions)
            .where(sessions.c.user_key == session.user.key, is_replaced)
            .values(**_columns_of(session), version=sessions.c.version + 1)
            .returning(sessions.c.version)
        )
        version: int | None = await connection.scalar(query)
        return version

    async def _add(self, connection: AsyncConnection, session: Session) -> int | None:
        """The first version, or None when there is a row of that user."""
        query = (
            self._insert(sessions)
            .values(user_key=session.user.key, version=1, **_columns_of(session))
            .on_conflict_do_nothing(index_elements=[sessions.c.user_key])
            .returning(sessions.c.version)
        )
        version: int | None = await connection.scalar(query)
        return version

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        if self._is_closed:
            raise StoreUnavailable("the database is closed")
        try:
            async with asyncio.timeout(self._timeout_s), self._engine.begin() as connection:
                yield connection
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
    return StoreUnavailable(f"the database does not answer: {reason}")


def _columns_of(session: Session) -> dict[str, Any]:
    return {
        "state": session.state.value,
        "since": session.since,
        "pod_name": session.pod.name if session.pod is not None else None,
    }


def _session_of(row: Row[Any]) -> Session:
    columns = row._mapping  # noqa: SLF001 - the public way to read columns of two tables by their table
    pod = None
    if columns[sessions.c.pod_name] is not None:
        pod = Pod(
            name=columns[pods.c.name],
            attempt=columns[pods.c.attempt],
            ordered_at=columns[pods.c.ordered_at],
            pod_id=columns[pods.c.pod_id],
            gpu_type=columns[pods.c.gpu_type],
            cost_per_hour_usd=columns[pods.c.cost_per_hour_usd],
        )
    return Session(
        user=UserId.from_key(columns[sessions.c.user_key]),
        state=State(columns[sessions.c.state]),
        since=columns[sessions.c.since],
        pod=pod,
        version=columns[sessions.c.version],
    )
