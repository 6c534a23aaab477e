"""A directory of names and passwords in memory, and hashes that take no time."""

import hashlib

from comfy_gateway.core.people.sign_in import PasswordsUnavailable


class FakePasswords:
    """Implements ``core.people.sign_in.Passwords``. Names are compared without case."""

    def __init__(self, **passwords: str) -> None:
        self.passwords = passwords
        self.is_down = False
        self.checked: list[tuple[str, str]] = []

    def canonical(self, name: str) -> str:
        """See the port."""
        return name.lower()

    def stamp(self, name: str) -> str | None:
        """See the port."""
        password = self.passwords.get(name)
        return None if password is None else f"hash of {password}"

    def check(self, name: str, password: str) -> bool:
        """See the port."""
        self.checked.append((name, password))
        if self.is_down:
            raise PasswordsUnavailable
        return self.passwords.get(name) == password


class FakeHashes:
    """Implements ``core.people.sign_in.TokenHashes`` without cost."""

    def __init__(self) -> None:
        self.verified: list[str] = []

    def make(self, token: str) -> str:
        """See the port."""
        return f"$argon2id${hashlib.sha256(token.encode()).hexdigest()}"

    def verify(self, hashed: str | None, token: str) -> bool:
        """See the port."""
        self.verified.append(token)
        return hashed == self.make(token)
