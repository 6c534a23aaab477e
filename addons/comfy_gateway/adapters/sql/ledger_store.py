"""``core.ports.LedgerStore`` over SQLAlchemy."""

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, Update, delete, func, literal, not_, select, tuple_, update

from comfy_gateway.adapters.sql.database import Database
from comfy_gateway.adapters.sql.tables import prompt_bodies, prompt_entries, prompts
from comfy_gateway.core import loose_json
from comfy_gateway.core.ports import Entries
from comfy_gateway.core.prompts.prompts import Hiding, LedgerChange, LedgerRow, Outcome, PromptRecord

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""A larger body is not stored: the prompt cannot be submitted again after a restart of the gateway."""
MAX_SID_CHARACTERS: Final = 1_000

_HAS_ENDED: Final = (prompts.c.ended_at.is_not(None)) & prompts.c.is_confirmed
_ENDED_KEY: Final = (prompts.c.ended_at, prompts.c.position, prompts.c.prompt_id)


class SqlLedgerStore:
    """The ledger in the database's three tables of prompts. Entries are compressed, in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(
        self, changes: Sequence[LedgerChange], hidings: Sequence[Hiding] = ()
    ) -> Sequence[LedgerRow]:
        """See the port. One round trip for each kind of change, however many there are of it."""
        entries = await _packed(changes)
        return await self._database.at_once(
            lambda connection: self._write(connection, changes, hidings, entries)
        )

    def _write(
        self,
        connection: Connection,
        changes: Sequence[LedgerChange],
        hidings: Sequence[Hiding],
        entries: Mapping[str, bytes],
    ) -> Sequence[LedgerRow]:
        discarded = [change.prompt_id for change in changes if change.is_discarded]
        if discarded:
            connection.execute(delete(prompts).where(prompts.c.prompt_id.in_(discarded)))
        conflicts = self._add(connection, [change for change in changes if change.is_new])
        if conflicts:
            taken = {row.record.prompt_id for row in conflicts}
            changes = [change for change in changes if change.prompt_id not in taken]
        self._save(connection, [change for change in changes if not change.is_new])
        changes = self._stored(connection, changes)
        self._write_bodies(connection, changes)
        kept = {change.prompt_id for change in changes}
        self._put(connection, prompt_entries, "entry", {id_: entries[id_] for id_ in entries if id_ in kept})
        for hiding in hidings:
            connection.execute(_hide(hiding))
        return conflicts

    async def load(self, newest: int) -> Sequence[LedgerRow]:
        """By position."""
        ended = select(prompts).where(_HAS_ENDED).order_by(prompts.c.position.desc()).limit(newest)
        others = select(prompts).where(not_(_HAS_ENDED))
        async with self._database.reading() as connection:
            rows = [_row_of(row) for query in (ended, others) for row in await connection.execute(query)]
        return sorted(rows, key=lambda row: row.record.position)

    async def highest_position(self) -> int:
        """0 where there is none."""
        async with self._database.reading() as connection:
            highest: int | None = await connection.scalar(select(func.max(prompts.c.position)))
        return highest or 0

    async def find(self, prompt_id: str) -> LedgerRow | None:
        """One row."""
        async with self._database.reading() as connection:
            found = (
                await connection.execute(select(prompts).where(prompts.c.prompt_id == prompt_id))
            ).first()
        return None if found is None else _row_of(found)

    async def body(self, prompt_id: str) -> bytes | None:
        """One body."""
        query = select(prompt_bodies.c.body).where(prompt_bodies.c.prompt_id == prompt_id)
        async with self._database.reading() as connection:
            body: bytes | None = await connection.scalar(query)
        return body

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """One entry, unpacked in a thread."""
        query = (
            select(prompt_entries.c.entry)
            .join(prompts, prompts.c.prompt_id == prompt_entries.c.prompt_id)
            .where(prompts.c.prompt_id == prompt_id, not_(prompts.c.is_hidden))
        )
        async with self._database.reading() as connection:
            packed: bytes | None = await connection.scalar(query)
        return None if packed is None else await asyncio.to_thread(_unpack, packed)

    async def entries(
        self, user_key: str | None, *, limit: int, before: PromptRecord | None = None
    ) -> Entries:
        """Last ended first, unpacked in a thread."""
        query = (
            select(prompts, prompt_entries.c.entry)
            .join(prompt_entries, prompts.c.prompt_id == prompt_entries.c.prompt_id)
            .where(_HAS_ENDED, not_(prompts.c.is_hidden), prompts.c.user_key.is_not_distinct_from(user_key))
            .order_by(*(column.desc() for column in _ENDED_KEY))
            .limit(limit)
        )
        if before is not None:
            key = (before.ended_at, before.position, before.prompt_id)
            values = [literal(value, column.type) for value, column in zip(key, _ENDED_KEY, strict=True)]
            query = query.where(tuple_(*_ENDED_KEY) < tuple_(*values))
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return await asyncio.to_thread(
            lambda: [(_row_of(row).record, _unpack(row._mapping["entry"])) for row in rows]  # noqa: SLF001
        )

    async def prune(self, keep: int) -> int:
        """By position."""
        newest_old = (
            select(prompts.c.position)
            .where(_HAS_ENDED)
            .order_by(prompts.c.position.desc())
            .offset(keep)
            .limit(1)
            .scalar_subquery()
        )
        async with self._database.transaction() as connection:
            done = await connection.execute(
                delete(prompts).where(_HAS_ENDED, prompts.c.position <= newest_old)
            )
        return done.rowcount

    def _add(self, connection: Connection, changes: Sequence[LedgerChange]) -> list[LedgerRow]:
        """Add new rows; returns those that are there already under the same id."""
        rows = {change.prompt_id: change.row for change in changes if change.row is not None}
        if not rows:
            return []
        query = (
            self._database.insert(prompts)
            .on_conflict_do_nothing(index_elements=[prompts.c.prompt_id])
            .returning(prompts.c.prompt_id)
        )
        added = connection.scalars(query, [_columns_of(row) for row in rows.values()])
        missing = rows.keys() - set(added)
        if not missing:
            return []
        found = connection.execute(select(prompts).where(prompts.c.prompt_id.in_(missing)))
        return [_row_of(row) for row in found]

    def _save(self, connection: Connection, changes: Sequence[LedgerChange]) -> None:
        rows = [_columns_of(change.row) for change in changes if change.row is not None]
        if rows:
            query = self._database.insert(prompts)
            new = {name: query.excluded[name] for name in rows[0] if name != "prompt_id"}
            connection.execute(
                query.on_conflict_do_update(index_elements=[prompts.c.prompt_id], set_=new), rows
            )

    def _stored(self, connection: Connection, changes: Sequence[LedgerChange]) -> Sequence[LedgerChange]:
        """Those whose prompt is in the database by now."""
        unsure = {
            change.prompt_id for change in changes if change.row is None and (change.body or change.entry)
        }
        if not unsure:
            return changes
        found = connection.scalars(select(prompts.c.prompt_id).where(prompts.c.prompt_id.in_(unsure)))
        missing = unsure - set(found)
        return [change for change in changes if change.prompt_id not in missing]

    def _write_bodies(self, connection: Connection, changes: Sequence[LedgerChange]) -> None:
        bodies = {
            change.prompt_id: change.body
            for change in changes
            if change.body is not None and len(change.body) <= MAX_BODY_BYTES
        }
        self._put(connection, prompt_bodies, "body", bodies)
        done = [change.prompt_id for change in changes if change.is_body_done]
        if done:
            connection.execute(delete(prompt_bodies).where(prompt_bodies.c.prompt_id.in_(done)))

    def _put(self, connection: Connection, table: Table, column: str, values: Mapping[str, bytes]) -> None:
        if values:
            query = self._database.insert(table)
            connection.execute(
                query.on_conflict_do_update(
                    index_elements=[table.c.prompt_id], set_={column: query.excluded[column]}
                ),
                [{"prompt_id": prompt_id, column: value} for prompt_id, value in values.items()],
            )


async def _packed(changes: Iterable[LedgerChange]) -> dict[str, bytes]:
    entries = {change.prompt_id: change.entry for change in changes if change.entry is not None}
    if not entries:
        return {}
    return await asyncio.to_thread(lambda: {id_: _pack(entry) for id_, entry in entries.items()})


def _pack(entry: Mapping[str, Any]) -> bytes:
    return zlib.compress(loose_json.write(entry), 1)


def _unpack(packed: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = loose_json.read(zlib.decompress(packed))
    return entry


def _hide(hiding: Hiding) -> Update:
    query = (
        update(prompts)
        .where(
            prompts.c.user_key.is_not_distinct_from(hiding.user_key),
            _HAS_ENDED,
            prompts.c.ended_at <= hiding.at,
        )
        .values(is_hidden=True)
    )
    if hiding.prompt_ids is None:
        return query
    return query.where(prompts.c.prompt_id.in_(hiding.prompt_ids))


def _columns_of(row: LedgerRow) -> dict[str, Any]:
    record = row.record
    return {
        "prompt_id": record.prompt_id,
        "user_key": record.user_key,
        "sid": record.sid if _is_storable(record.sid) else "",
        "backend_id": record.backend_id,
        "outcome": record.outcome.value,
        "is_confirmed": row.is_confirmed,
        "number": record.number,
        "position": record.position,
        "body_sha256": record.body_sha256,
        "accepted_at": record.accepted_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "replays": record.replays,
        "node_errors": loose_json.write(record.node_errors) if record.node_errors else None,
        "is_hidden": record.is_hidden,
    }


def _row_of(row: Row[Any]) -> LedgerRow:
    record = PromptRecord(
        prompt_id=row.prompt_id,
        user_key=row.user_key,
        sid=row.sid,
        backend_id=row.backend_id,
        outcome=Outcome(row.outcome),
        number=int(row.number) if row.number.is_integer() else row.number,
        position=row.position,
        body_sha256=row.body_sha256,
        accepted_at=row.accepted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        replays=row.replays,
        node_errors=loose_json.read(row.node_errors) if row.node_errors is not None else {},
        is_hidden=row.is_hidden,
    )
    return LedgerRow(record, row.is_confirmed)


def _is_storable(sid: str) -> bool:
    """Whether any database takes it as a text. It is the client's own word; no page makes such a one."""
    return len(sid) <= MAX_SID_CHARACTERS and sid.isprintable()
