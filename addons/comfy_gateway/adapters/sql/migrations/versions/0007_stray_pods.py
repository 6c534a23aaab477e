"""Since when pods with our tag have been nobody's."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table; it fills with what the cloud lists."""
    op.create_table(
        "stray_pods",
        sa.Column("pod_id", sa.Text, primary_key=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
    )
