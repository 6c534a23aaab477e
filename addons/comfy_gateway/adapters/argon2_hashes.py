"""Hashes of sign-in tokens."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError


class Argon2Hashes:
    """Implements ``core.people.sign_in.TokenHashes`` with the library's own parameters (RFC 9106, low memory)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        # Somebody who guesses shall not see by the time it takes whether a token's owner exists.
        self._nobodys = self._hasher.hash("nobody's token")

    def make(self, token: str) -> str:
        """A salted hash."""
        return self._hasher.hash(token)

    def verify(self, hashed: str | None, token: str) -> bool:
        """Whether the token is the one that was hashed; takes as long for None, and says no."""
        try:
            is_right = self._hasher.verify(self._nobodys if hashed is None else hashed, token)
        except (VerificationError, InvalidHashError):
            return False
        return is_right and hashed is not None
