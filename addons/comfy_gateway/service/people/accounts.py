"""The people of ``AUTH_MODE=tokens``, re-read while the gateway runs."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from comfy_gateway.core.people.accounts import Accounts, AccountsUnreadable
from comfy_gateway.core.people.sign_in import AccountFile
from comfy_gateway.core.ports import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0


class AccountBook:
    """What the file says now. A file that cannot be read changes nothing, one that is gone holds nobody."""

    def __init__(self, file: AccountFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._version: object = None
        self._on_leave: list[Callable[[str], None]] = []
        self.accounts = Accounts()

    def on_leave(self, tell: Callable[[str], None]) -> None:
        """Call ``tell`` with the name of whoever is removed, or gets another token or role."""
        self._on_leave.append(tell)

    async def load(self) -> None:
        """The first look. Raises AccountsUnreadable or OSError."""
        await self._look()
        if not self.accounts.by_name:
            logger.warning("nobody can sign in yet: ./run_gateway.sh user add NAME")

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except (AccountsUnreadable, OSError) as error:
                logger.error("the file of users cannot be used, what it said before still holds: %s", error)  # noqa: TRY400 - its reader needs no trace

    async def _look(self) -> None:
        version = await asyncio.to_thread(self._file.version)
        if version == self._version:
            return
        self._version = version  # also for what cannot be read: said once, not every two seconds
        before, self.accounts = self.accounts, await asyncio.to_thread(self._file.read)
        for name, account in before.by_name.items():
            if self.accounts.by_name.get(name) != account:
                logger.info("user %s was removed or changed", name)
                for tell in self._on_leave:
                    tell(name)
