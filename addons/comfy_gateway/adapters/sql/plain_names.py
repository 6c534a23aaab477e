"""Whose files are shown without an alias, which is settled once for a database."""

from collections.abc import Sequence

from sqlalchemy import select, update

from comfy_gateway.adapters.sql.database import Database
from comfy_gateway.adapters.sql.tables import plain_names, prompts
from comfy_gateway.core.requests.duty_servers import id_by_position

_ONLY = 1


class SqlPlainNames:
    """One row, and the prompts from the time when shared servers were called by their place in the settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settle(self, duty_ids: Sequence[str]) -> str:
        """The id of the server whose files are shown without an alias: of the first that was ever home.

        ``duty_ids``: shared servers, home first. The first call for a database also gives prompts that bear a place in
        the list the id of the server that stands there now; one beyond the end of the list is nobody's for ever.
        Raises StoreUnavailable.
        """
        first = self._database.insert(plain_names).values(only=_ONLY, server_id=duty_ids[0])
        async with self._database.transaction() as connection:
            is_first = await connection.scalar(
                first.on_conflict_do_nothing().returning(plain_names.c.server_id)
            )
            for position, duty_id in enumerate(duty_ids if is_first else ()):
                known = prompts.c.backend_id == id_by_position(position)
                await connection.execute(update(prompts).where(known).values(backend_id=duty_id))
            return str(await connection.scalar(select(plain_names.c.server_id)))
