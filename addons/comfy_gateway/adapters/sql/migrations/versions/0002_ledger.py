"""The ledger of prompts, their bodies and their entries in the history."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "prompts",
        sa.Column("prompt_id", sa.Text, primary_key=True),
        sa.Column("user_key", sa.Text),
        sa.Column("sid", sa.Text, nullable=False),
        sa.Column("backend_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("is_confirmed", sa.Boolean, nullable=False),
        sa.Column("number", sa.Float(53), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False, index=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("replays", sa.Integer, nullable=False),
        sa.Column("node_errors", sa.LargeBinary),
        sa.Column("is_hidden", sa.Boolean, nullable=False),
    )
    op.create_index("ix_prompts_user_key_ended_at", "prompts", ["user_key", "ended_at"])
    for table, column in (("prompt_bodies", "body"), ("prompt_entries", "entry")):
        op.create_table(
            table,
            sa.Column(
                "prompt_id",
                sa.Text,
                sa.ForeignKey("prompts.prompt_id", name=f"{table}_prompt_id_fkey", ondelete="CASCADE"),
                primary_key=True,
            ),
            sa.Column(column, sa.LargeBinary, nullable=False),
        )
