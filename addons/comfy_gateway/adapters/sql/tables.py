"""The tables as the newest migration leaves them. A change here needs a migration; a test compares the two.

``sessions`` holds one row for each user who ever had a pod asked for, ``pods`` one for each attempt at a pod,
kept as history. A session points at its pod, so what is known of a pod is written once. ``vault_files`` holds one row
for each content that the vault keeps.

``uploads`` says what a name of an input file means to its owner from a time on, ``upload_copies`` which server has
which content under which name.

``prompts`` is the ledger. ``prompt_bodies`` holds what may have to be submitted again and goes when the prompt has
ended; ``prompt_entries`` holds the history, from the ending on. They are tables of their own because they are large
and hardly ever read.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
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

stray_pods = Table(
    "stray_pods",
    metadata,
    Column("pod_id", Text, primary_key=True),
    Column("first_seen_at", UtcDateTime, nullable=False),
)
"""Pods with our tag that nobody claims: how long they may live must not begin anew with each start."""

sessions = Table(
    "sessions",
    metadata,
    Column("user_key", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("pod_name", Text, ForeignKey("pods.name", name="sessions_pod_name_fkey")),
    Column("version", BigInteger, nullable=False),
)

prompts = Table(
    "prompts",
    metadata,
    Column("prompt_id", Text, primary_key=True),
    Column("user_key", Text),
    Column("sid", Text, nullable=False),
    Column("backend_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("is_confirmed", Boolean, nullable=False),
    Column("number", Float(53), nullable=False),
    Column("position", BigInteger, nullable=False, index=True),
    Column("body_sha256", Text, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("replays", Integer, nullable=False),
    Column("node_errors", LargeBinary),
    Column("is_hidden", Boolean, nullable=False),
    Index("ix_prompts_user_key_ended_at", "user_key", "ended_at"),
)

prompt_bodies = Table(
    "prompt_bodies",
    metadata,
    Column(
        "prompt_id",
        Text,
        ForeignKey("prompts.prompt_id", name="prompt_bodies_prompt_id_fkey", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("body", LargeBinary, nullable=False),
)

prompt_entries = Table(
    "prompt_entries",
    metadata,
    Column(
        "prompt_id",
        Text,
        ForeignKey("prompts.prompt_id", name="prompt_entries_prompt_id_fkey", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("entry", LargeBinary, nullable=False),
)

vault_files = Table(
    "vault_files",
    metadata,
    Column("name_key", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("user_key", Text, nullable=False),
    Column("pod_name", Text, nullable=False, index=True),
    Column("alias", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subfolder", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("etag", Text),
    Column("stored_at", UtcDateTime, nullable=False, index=True),
    Column("prompt_id", Text),
)
"""``name_key`` is ``core.vault.vault.file_key``: names themselves may be longer than PostgreSQL takes into an index."""

uploads = Table(
    "uploads",
    metadata,
    Column("owner_key", Text, primary_key=True),
    Column("folder", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("uploaded_at", UtcDateTime, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("is_listed", Boolean, nullable=False),
    Index("ix_uploads_uploaded_at", "uploaded_at"),
)

upload_copies = Table(
    "upload_copies",
    metadata,
    Column("place", Text, primary_key=True),
    Column("folder", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("is_carried", Boolean, nullable=False),
    Column("etag", Text, nullable=False),
)

sign_outs = Table(
    "sign_outs",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("until", UtcDateTime, nullable=False),
)
"""Sessions of browsers that were ended before their time."""

plain_names = Table(
    "plain_names",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("server_id", Text, nullable=False),
)
"""The shared server whose files are shown without an alias. One row."""
