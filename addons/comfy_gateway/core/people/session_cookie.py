"""The cookie of somebody who has signed in: a signed statement for a limited time.

It names the account and a *seal*, a keyed digest of what the account signs in by (``Keys.seal``). Who is removed, or
gets another token or password, has another seal or none, and the cookie is worth nothing from that moment. It also
has an id, so that signing out ends this one session, also for somebody who has copied the cookie.

Behind HTTPS its name begins with ``__Host-``: browsers then keep other hosts of the same domain from setting it.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadData, URLSafeSerializer

from comfy_gateway.core.people.users import is_valid_name

PLAIN_NAME: Final = "comfy_gateway_session"
SECURE_NAME: Final = f"__Host-{PLAIN_NAME}"
NAMES: Final = frozenset({PLAIN_NAME, SECURE_NAME})

_ATTRIBUTES: Final = "Path=/; HttpOnly; SameSite=Lax"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """One session of one browser."""

    name: str
    seal: str
    session_id: str
    ends_at_s: int
    """Seconds since 1970, UTC."""


class SessionCookies:
    """Writes and reads them. ``purpose`` keeps the cookies of one sign-in mode from counting in another."""

    def __init__(self, key: str, purpose: str) -> None:
        self._serializer = URLSafeSerializer(
            key,
            salt=f"{PLAIN_NAME} {purpose}",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def write(self, session: SignedIn, *, now_s: float, secure: bool) -> str:
        """Value of a ``Set-Cookie`` header."""
        fields = [session.name, session.seal, session.session_id, session.ends_at_s]
        pair = f"{name_of(secure=secure)}={self._serializer.dumps(fields)}"
        cookie = f"{pair}; Max-Age={max(0, int(session.ends_at_s - now_s))}; {_ATTRIBUTES}"
        return f"{cookie}; Secure" if secure else cookie

    def read(self, value: str) -> SignedIn | None:
        """What we once said, whether or not it still holds; None without our signature."""
        try:
            name, seal, session_id, ends_at_s = self._serializer.loads(value)
        except (BadData, ValueError, TypeError):
            return None
        if not isinstance(name, str) or not is_valid_name(name) or not isinstance(ends_at_s, int):
            return None
        return SignedIn(name, str(seal), str(session_id), ends_at_s)


def name_of(*, secure: bool) -> str:
    """The cookie's name: only this one counts where the browser speaks HTTPS, or does not."""
    return SECURE_NAME if secure else PLAIN_NAME


def removal(*, secure: bool) -> str:
    """Value of a ``Set-Cookie`` header that ends the cookie in the browser."""
    cookie = f"{name_of(secure=secure)}=; Max-Age=0; {_ATTRIBUTES}"
    return f"{cookie}; Secure" if secure else cookie
