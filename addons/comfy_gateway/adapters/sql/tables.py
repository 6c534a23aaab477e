"""The tables as the newest migration leaves them. A change here needs a migration; a test compares the two.

``sessions`` holds one row for each user who ever had a pod asked for, ``pods`` one for each attempt at a pod,
kept as history. A session points at its pod, so what is known of a pod is written once.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Float, ForeignKey, MetaData, Table, Text
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """Aware times, kept as UTC. SQLite has no time zones: there the zone is left out and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware UTC. Raises ValueError for a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Aware UTC."""
        if value is None:
            return None
        stored: datetime = value
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


metadata = MetaData()

pods = Table(
    "pods",
    metadata,
    Column("name", Text, primary_key=True),
    Column("user_key", Text, nullable=False, index=True),
    Column("attempt", Text, nullable=False),
    Column("pod_id", Text),
    Column("gpu_type", Text),
    Column("cost_per_hour_usd", Float(53)),
    Column("ordered_at", UtcDateTime, nullable=False),
    Column("ready_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("cause", Text),
)

sessions = Table(
    "sessions",
    metadata,
    Column("user_key", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("pod_name", Text, ForeignKey("pods.name", name="sessions_pod_name_fkey")),
    Column("version", BigInteger, nullable=False),
)
