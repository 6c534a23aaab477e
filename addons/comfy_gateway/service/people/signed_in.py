"""The sessions of browsers that have signed in: begun, found by their cookie, prolonged, ended."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.people.session_cookie import SessionCookies, SignedIn
from comfy_gateway.core.people.sign_in import SignOutStore
from comfy_gateway.core.ports import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0


class SignedInSessions:
    """Sessions need no store: their cookies say all. Kept is only which of them were ended before their time."""

    def __init__(self, *, cookies: SessionCookies, store: SignOutStore, clock: Clock, life_s: float) -> None:
        self._cookies = cookies
        self._store = store
        self._clock = clock
        self._life_s = life_s
        self._ended: dict[str, float] = {}
        self._on_end: list[Callable[[str], None]] = []

    def on_end(self, tell: Callable[[str], None]) -> None:
        """Call ``tell`` with the name of whoever signs out."""
        self._on_end.append(tell)

    def begin(self, name: str, seal: str) -> SignedIn:
        """A new session."""
        return SignedIn(name, seal, secrets.token_hex(16), int(self._now_s() + self._life_s))

    def find(self, values: Iterable[str]) -> SignedIn | None:
        """The first cookie that is ours, has not run out, and was not ended. Its seal is for the caller to check."""
        now_s = self._now_s()
        for value in values:
            session = self._cookies.read(value)
            if session is not None and session.ends_at_s > now_s and session.session_id not in self._ended:
                return session
        return None

    def prolonged(self, session: SignedIn) -> SignedIn | None:
        """The same session for another life, once half of its time is over; None before."""
        now_s = self._now_s()
        if session.ends_at_s - now_s > self._life_s / 2:
            return None
        return replace(session, ends_at_s=int(now_s + self._life_s))

    def cookie(self, session: SignedIn, *, secure: bool) -> str:
        """Value of a ``Set-Cookie`` header."""
        return self._cookies.write(session, now_s=self._now_s(), secure=secure)

    async def end(self, session_id: str, name: str) -> None:
        """Sign out: whoever holds the cookie, or a copy of it, is nobody from now on."""
        until_s = self._now_s() + self._life_s  # also for a cookie that was prolonged a moment ago
        self._ended[session_id] = until_s
        for tell in self._on_end:
            tell(name)
        try:
            await self._store.add(session_id, datetime.fromtimestamp(until_s, UTC), self._clock.now())
        except StoreUnavailable as error:
            logger.warning("a sign-out could not be stored and will not outlive this gateway: %s", error)

    async def load(self) -> None:
        """Read what was ended before we started. Raises StoreUnavailable."""
        now_s = self._now_s()
        stored = await self._store.load(self._clock.now())
        self._ended = {
            session_id: until_s for session_id, until_s in self._ended.items() if until_s > now_s
        } | dict.fromkeys(stored - self._ended.keys(), now_s + self._life_s)

    async def run(self) -> None:
        """Hear what other gateways have ended."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                await self.load()
            except StoreUnavailable as error:
                logger.warning("sign-outs of other gateways are not heard: %s", error)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()
