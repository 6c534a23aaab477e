"""Files of pods that the vault keeps."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "vault_files",
        sa.Column("name_key", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("user_key", sa.Text, nullable=False),
        sa.Column("pod_name", sa.Text, nullable=False, index=True),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subfolder", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("etag", sa.Text),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("prompt_id", sa.Text),
    )
