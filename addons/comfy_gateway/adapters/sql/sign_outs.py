"""``core.people.sign_in.SignOutStore`` over SQLAlchemy."""

from datetime import datetime

from sqlalchemy import delete, select

from comfy_gateway.adapters.sql.database import Database
from comfy_gateway.adapters.sql.tables import sign_outs


class SqlSignOuts:
    """Ended sessions in the gateway's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, session_id: str, until: datetime, now: datetime) -> None:
        """Ending twice is ending once."""
        query = self._database.insert(sign_outs).values(session_id=session_id, until=until)
        async with self._database.transaction() as connection:
            await connection.execute(query.on_conflict_do_nothing())
            await connection.execute(delete(sign_outs).where(sign_outs.c.until < now))

    async def load(self, now: datetime) -> frozenset[str]:
        """Those that would still go on."""
        async with self._database.reading() as connection:
            query = select(sign_outs.c.session_id).where(sign_outs.c.until > now)
            return frozenset((await connection.execute(query)).scalars())
