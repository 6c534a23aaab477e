"""``AUTH_MODE=tokens``: a token of ours as Bearer, or typed into the sign-in page once."""

from collections.abc import Collection
from hmac import compare_digest

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.accounts import Account, key_id_of
from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.credentials import bearer_of
from comfy_gateway.core.people.roles import Role, Standing
from comfy_gateway.core.people.session_cookie import SignedIn
from comfy_gateway.core.people.sign_in import (
    BEARER,
    AuthMode,
    Recognised,
    TokenHashes,
    not_signed_in,
    wrong_credentials,
)
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.service.people.accounts import AccountBook
from comfy_gateway.service.people.attempts import Attempts
from comfy_gateway.service.people.signed_in import SignedInSessions

_WRONG = wrong_credentials(BEARER)
_MISSING = Recognised(
    refusal=not_signed_in(
        BEARER, "Scripts send the token as 'Authorization: Bearer'; browsers open /gateway/signin."
    ),
    is_sent_to_page=True,
)


class TokensSignIn:
    """Implements ``SignIn``, and the sign-in page's ``enter``."""

    def __init__(
        self,
        *,
        book: AccountBook,
        hashes: TokenHashes,
        attempts: Attempts,
        sessions: SignedInSessions,
        keys: Keys,
        operators: Collection[str] = (),
    ) -> None:
        """``operators`` are names that are operators whatever the file says."""
        self._book = book
        self._hashes = hashes
        self._attempts = attempts
        self._sessions = sessions
        self._keys = keys
        self._operators = frozenset(operators)

    async def recognise(self, caller: Caller) -> Recognised:
        """By Bearer, else by session."""
        if caller.authorization:
            token = bearer_of(caller.authorization)
            if token is not None:
                found = await self._prove(token, caller.address)
                if isinstance(found, Refusal):
                    return Recognised(refusal=found)
                return Recognised(self._standing(found))
        found_session = self.session_of(caller)
        return found_session if found_session.session is not None else _MISSING

    def session_of(self, caller: Caller) -> Recognised:
        """By session alone."""
        session = self._sessions.find(caller.sessions)
        account = None if session is None else self._book.accounts.by_name.get(session.name)
        if session is None or account is None or not compare_digest(session.seal, self._seal(account)):
            return Recognised()
        remember = self._sessions.prolonged(session) if caller.is_page_load else None
        return Recognised(self._standing(account), session=session, remember=remember)

    async def enter(self, token: str, address: str) -> SignedIn | Refusal:
        """A new session for a token."""
        found = await self._prove(token, address)
        return found if isinstance(found, Refusal) else self._sessions.begin(found.name, self._seal(found))

    async def _prove(self, token: str, address: str) -> Account | Refusal:
        key_id = key_id_of(token)
        if key_id is None:
            if (held_up := self._attempts.held_up(address)) is not None:
                return held_up
            self._attempts.fail(address)
            return _WRONG
        account = self._book.accounts.by_key_id.get(key_id)
        hashed = None if account is None else account.hash
        refusal = await self._attempts.prove(
            token,
            stamp=hashed or "",
            name=key_id if account is None else account.name,
            address=address,
            check=lambda: self._hashes.verify(hashed, token),
            wrong=_WRONG,
        )
        # The file may have been read again meanwhile.
        if refusal is None and (account is None or self._book.accounts.by_key_id.get(key_id) != account):
            return _WRONG
        return refusal or account or _WRONG

    def _seal(self, account: Account) -> str:
        return self._keys.seal(AuthMode.TOKENS, account.name, account.hash)

    def _standing(self, account: Account) -> Standing:
        role = Role.OPERATOR if account.name in self._operators else account.role
        return Standing(UserId(IdKind.NAMED, account.name), role, is_proven=True)
