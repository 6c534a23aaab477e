"""Sessions of users, and the history of pods."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "pods",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("user_key", sa.Text, nullable=False, index=True),
        sa.Column("attempt", sa.Text, nullable=False),
        sa.Column("pod_id", sa.Text),
        sa.Column("gpu_type", sa.Text),
        sa.Column("cost_per_hour_usd", sa.Float(53)),
        sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("cause", sa.Text),
    )
    op.create_table(
        "sessions",
        sa.Column("user_key", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pod_name", sa.Text, sa.ForeignKey("pods.name", name="sessions_pod_name_fkey")),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
