"""Brings a database to the newest schema at start."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection

from comfy_gateway.adapters.sql.engine import make_engine

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_ADVISORY_LOCK: Final = 0x636F6D6679
"""Any number, the same in all gateways: PostgreSQL lets one of them migrate at a time."""


def migrate(url: URL, timeout_s: float) -> None:
    """Apply what is missing, in one transaction. Blocks, with an event loop of its own: run it in a thread.

    Raises what SQLAlchemy, Alembic and the driver raise; alembic's CommandError for a database from the
    future.
    """
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)
    asyncio.run(_migrate(url, timeout_s))


async def _migrate(url: URL, timeout_s: float) -> None:
    engine = make_engine(url, timeout_s)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
