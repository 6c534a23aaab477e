"""``core.ports.SessionStore`` over SQLAlchemy."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from comfy_gateway.adapters.sql.database import DEFAULT_TIMEOUT_S, Database, open_database
from comfy_gateway.adapters.sql.tables import pods, sessions, stray_pods
from comfy_gateway.core.errors import StaleRecord
from comfy_gateway.core.life.eta import Start
from comfy_gateway.core.life.session import Pod, Session, State
from comfy_gateway.core.money.costs import Bill
from comfy_gateway.core.people.users import UserId


async def open_store(url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> "SqlSessionStore":
    """The store of sessions in that database. Raises as ``open_database``."""
    return SqlSessionStore(await open_database(url, timeout_s=timeout_s))


class SqlSessionStore:
    """Sessions and the history of pods in one database; every call is one transaction.

    A session that came back to SHARED keeps its row, so that its versions go on counting: whoever still holds
    an older version of it is stale for ever. Such a row counts as "not stored yet", for nobody loads it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_sessions(self) -> Sequence[Session]:
        """All sessions that are not plainly SHARED, by user."""
        query = (
            select(sessions, pods)
            .select_from(sessions.outerjoin(pods, sessions.c.pod_name == pods.c.name))
            .where(sessions.c.state != State.SHARED.value)
            .order_by(sessions.c.user_key)
        )
        async with self._database.transaction() as connection:
            return [_session_of(row) for row in await connection.execute(query)]

    async def save_session(self, session: Session) -> Session:
        """Write the session and its pod if ``version`` is the stored one; returns it with the next version.

        Raises StaleRecord, and writes nothing, when somebody else saved it meanwhile.
        """
        async with self._database.transaction() as connection:
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
        async with self._database.transaction() as connection:
            await connection.execute(query)

    async def knows_pod(self, pod_name: str) -> bool:
        """Whether a pod of that name was ever ordered by us."""
        async with self._database.transaction() as connection:
            found = await connection.scalar(select(pods.c.name).where(pods.c.name == pod_name))
        return found is not None

    async def bills(self, *, since: datetime) -> Sequence[Bill]:
        """Pods that the cloud has named and that lived then or later; an order that made none costs nothing."""
        query = (
            select(pods, sessions.c.user_key.is_not(None).label("is_running"))
            .select_from(pods.outerjoin(sessions, sessions.c.pod_name == pods.c.name))
            .where(pods.c.pod_id.is_not(None), or_(pods.c.ended_at.is_(None), pods.c.ended_at > since))
            .order_by(pods.c.ordered_at, pods.c.name)
        )
        async with self._database.reading() as connection:
            return [
                Bill(
                    user_key=row.user_key,
                    pod_name=row.name,
                    gpu_type=row.gpu_type,
                    usd_per_hour=row.cost_per_hour_usd,
                    began_at=row.ordered_at,
                    ended_at=row.ended_at,
                    is_running=bool(row.is_running),
                    cause=row.cause,
                )
                for row in await connection.execute(query)
            ]

    async def starts(self, *, newest: int) -> Sequence[Start]:
        """By the moment of their order. Times that run backwards are those of a clock that was set."""
        query = (
            select(pods.c.gpu_type, pods.c.ordered_at, pods.c.ready_at)
            .where(pods.c.ready_at > pods.c.ordered_at)
            .order_by(pods.c.ordered_at.desc(), pods.c.name.desc())
            .limit(newest)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Start(row.gpu_type, (row.ready_at - row.ordered_at).total_seconds()) for row in reversed(rows)
        ]

    async def first_sight(self, pod_id: str, *, at: datetime) -> datetime:
        """When this pod was first seen; the first word stays."""
        insert = (
            self._database.insert(stray_pods)
            .values(pod_id=pod_id, first_seen_at=at)
            .on_conflict_do_nothing(index_elements=[stray_pods.c.pod_id])
        )
        query = select(stray_pods.c.first_seen_at).where(stray_pods.c.pod_id == pod_id)
        async with self._database.transaction() as connection:
            await connection.execute(insert)
            found: datetime = (await connection.execute(query)).scalar_one()
        return found

    async def forget_sights(self, *, but: Collection[str]) -> None:
        """Keep these ids alone."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(stray_pods).where(stray_pods.c.pod_id.not_in(but)))

    async def aclose(self) -> None:
        """Close the database, for all stores in it. Later calls raise StoreUnavailable."""
        await self._database.aclose()

    async def _save_pod(self, connection: AsyncConnection, session: Session, pod: Pod) -> None:
        insert = self._database.insert(pods).values(
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
            self._database.insert(sessions)
            .values(user_key=session.user.key, version=1, **_columns_of(session))
            .on_conflict_do_nothing(index_elements=[sessions.c.user_key])
            .returning(sessions.c.version)
        )
        version: int | None = await connection.scalar(query)
        return version


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
