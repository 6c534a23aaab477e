"""Sign-outs in memory."""

from datetime import datetime

from comfy_gateway.core.errors import StoreUnavailable


class FakeSignOuts:
    """Implements ``core.people.sign_in.SignOutStore``; down when told so."""

    def __init__(self) -> None:
        self.rows: dict[str, datetime] = {}
        self.is_down = False

    async def add(self, session_id: str, until: datetime, now: datetime) -> None:
        """See the port."""
        self._answer()
        self.rows = {known: end for known, end in self.rows.items() if end >= now} | {session_id: until}

    async def load(self, now: datetime) -> frozenset[str]:
        """See the port."""
        self._answer()
        return frozenset(session_id for session_id, until in self.rows.items() if until > now)

    def _answer(self) -> None:
        if self.is_down:
            raise StoreUnavailable("the database is down")
