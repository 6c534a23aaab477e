"""The gateway's own cookie: remembers who a browser is, signed, so that nobody can write one for another.

The value is the user's key, readable but signed; it lives for a year and is renewed by every new naming. A
cookie signed with another master secret counts as none.
"""

import hashlib
from collections.abc import Collection
from typing import Final

from itsdangerous import BadData, URLSafeSerializer

from comfy_gateway.core.people.users import IdKind, UserId, is_valid_name

COOKIE_NAME: Final = "comfy_gateway_user"
MAX_AGE_S: Final = 365 * 24 * 3600

_REMEMBERED: Final = frozenset({IdKind.NAMED, IdKind.BROWSER})


class IdentityCookie:
    """Writes and reads the cookie. ``key`` is ``Keys.cookie_key()``."""

    def __init__(self, key: str) -> None:
        self._serializer = URLSafeSerializer(
            key, salt=COOKIE_NAME, signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        )

    def set_cookie_header(self, user: UserId, *, secure: bool) -> str:
        """Value of a ``Set-Cookie`` header; ``secure`` where browsers reach the gateway by HTTPS."""
        pair = f"{COOKIE_NAME}={self._serializer.dumps(user.key)}"
        cookie = f"{pair}; Max-Age={MAX_AGE_S}; Path=/; HttpOnly; SameSite=Lax"
        return f"{cookie}; Secure" if secure else cookie

    def read(self, cookie_header: str | None) -> UserId | None:
        """Whom the ``Cookie`` header (several joined by ``; ``) remembers; None without our signature."""
        for name, value in _pairs(cookie_header or ""):
            if name == COOKIE_NAME and (user := self._load(value)) is not None:
                return user
        return None

    def _load(self, value: str) -> UserId | None:
        try:
            key = self._serializer.loads(value)
            user = UserId.from_key(key)
        except (BadData, ValueError, AttributeError):
            return None
        return user if user.kind in _REMEMBERED and is_valid_name(user.name) else None


def cookie_values(cookie_header: str | None, name: str) -> tuple[str, ...]:
    """All values of one cookie in a ``Cookie`` header, in order, without their quotes."""
    return tuple(value for found, value in _pairs(cookie_header or "") if found == name)


def without_identity_cookie(cookie_header: str) -> str:
    """The ``Cookie`` header without our cookie, which no server needs to see; empty when nothing is left."""
    return without_cookies(cookie_header, {COOKIE_NAME})


def without_cookies(cookie_header: str, names: Collection[str]) -> str:
    """The ``Cookie`` header without those of these names; empty when nothing is left."""
    kept = [part.strip() for part in cookie_header.split(";") if part.partition("=")[0].strip() not in names]
    return "; ".join(part for part in kept if part)


def _pairs(cookie_header: str) -> list[tuple[str, str]]:
    pairs = []
    for part in cookie_header.split(";"):
        name, separator, value = part.partition("=")
        if separator:
            pairs.append((name.strip(), value.strip().removeprefix('"').removesuffix('"')))
    return pairs
