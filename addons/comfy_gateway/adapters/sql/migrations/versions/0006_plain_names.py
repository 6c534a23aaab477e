"""Which shared server's files are shown without an alias."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table; who it is follows from the settings (``adapters.sql.plain_names``)."""
    op.create_table(
        "plain_names",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("server_id", sa.Text, nullable=False),
    )
