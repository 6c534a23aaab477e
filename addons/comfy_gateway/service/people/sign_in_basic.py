"""``AUTH_MODE=basic``: name and password with every request, and a session for what cannot send them.

Not every browser sends the password with a WebSocket's handshake. A page load with a right password therefore gets a
session too, a short one: a directory does not tell us when a password changes.
"""

from collections.abc import Collection
from hmac import compare_digest

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.credentials import basic_of
from comfy_gateway.core.people.roles import Role, Standing
from comfy_gateway.core.people.sign_in import (
    BASIC,
    AuthMode,
    Passwords,
    Recognised,
    not_signed_in,
    wrong_credentials,
)
from comfy_gateway.core.people.users import IdKind, UserId, is_valid_name
from comfy_gateway.service.people.attempts import Attempts
from comfy_gateway.service.people.signed_in import SignedInSessions

_WRONG = wrong_credentials(BASIC)
_MISSING = Recognised(refusal=not_signed_in(BASIC))


class BasicSignIn:
    """Implements ``SignIn``."""

    def __init__(
        self,
        *,
        passwords: Passwords,
        attempts: Attempts,
        sessions: SignedInSessions,
        keys: Keys,
        operators: Collection[str] = (),
    ) -> None:
        self._passwords = passwords
        self._attempts = attempts
        self._sessions = sessions
        self._keys = keys
        self._operators = frozenset(operators)

    async def recognise(self, caller: Caller) -> Recognised:
        """By name and password, else by session."""
        given = basic_of(caller.authorization)
        if given is None:
            found = self.session_of(caller)
            return found if found.session is not None else _MISSING
        name, password = self._passwords.canonical(given[0]), given[1]
        if not is_valid_name(name) or not password:
            if (held_up := self._attempts.held_up(caller.address)) is not None:
                return Recognised(refusal=held_up)
            self._attempts.fail(caller.address)
            return Recognised(refusal=_WRONG)
        stamp = self._passwords.stamp(name)
        refusal = await self._attempts.prove(
            name,
            password,
            stamp=stamp or "",
            name=name,
            address=caller.address,
            check=lambda: self._passwords.check(name, password),
            wrong=_WRONG,
        )
        if refusal is not None:
            return Recognised(refusal=refusal)
        return self._known(caller, name, stamp or "")

    def session_of(self, caller: Caller) -> Recognised:
        """By session alone; it is not prolonged without the password."""
        session = self._sessions.find(caller.sessions)
        if session is None:
            return Recognised()
        stamp = self._passwords.stamp(session.name)
        if stamp is None or not compare_digest(session.seal, self._seal(session.name, stamp)):
            return Recognised()
        return Recognised(self._standing(session.name), session=session)

    def _known(self, caller: Caller, name: str, stamp: str) -> Recognised:
        session = self._sessions.find(caller.sessions)
        seal = self._seal(name, stamp)
        if session is None or session.name != name or not compare_digest(session.seal, seal):
            remember = self._sessions.begin(name, seal) if caller.is_page_load else None
            return Recognised(self._standing(name), remember=remember)
        remember = self._sessions.prolonged(session) if caller.is_page_load else None
        return Recognised(self._standing(name), session=session, remember=remember)

    def _seal(self, name: str, stamp: str) -> str:
        return self._keys.seal(AuthMode.BASIC, name, stamp)

    def _standing(self, name: str) -> Standing:
        role = Role.OPERATOR if name in self._operators else Role.USER
        return Standing(UserId(IdKind.NAMED, name), role, is_proven=True)
