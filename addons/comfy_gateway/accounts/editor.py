"""Changes ``config/users.yaml``."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml

from comfy_gateway.adapters.users_file import UsersFile
from comfy_gateway.core.people.accounts import Account, Accounts, token_of
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.sign_in import TokenHashes

_KEY_ID_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""None that can be mistaken for another."""
_HEAD: Final = "# Written by ./run_gateway.sh user. Tokens are not in here, only their hashes.\n"


class UsersEditor:
    """Several at once take turns. All calls raise AccountsUnreadable for a wrong file or name, and OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = UsersFile(path)

    def all(self) -> Accounts:
        """Who is there."""
        return self._file.read()

    def add(self, name: str, role: Role, hashes: TokenHashes) -> str | None:
        """A new account; returns its token, which is kept nowhere, or None where the name is taken."""
        with self._alone():
            accounts = self._file.read()
            if name in accounts.by_name:
                return None
            key_id = _new_key_id()
            while key_id in accounts.by_key_id:
                key_id = _new_key_id()
            token = token_of(key_id, secrets.token_urlsafe(32))
            account = Account(name, key_id, hashes.make(token), role)
            self._write(Accounts.of([*accounts.by_name.values(), account]))
            return token

    def remove(self, name: str) -> bool:
        """Whether there was such an account."""
        with self._alone():
            accounts = self._file.read()
            left = [account for account in accounts.by_name.values() if account.name != name]
            if len(left) == len(accounts.by_name):
                return False
            self._write(Accounts.of(left))
            return True

    def _write(self, accounts: Accounts) -> None:
        """In one piece: a gateway that reads at this moment sees the old file or the new one."""
        document = accounts.document()
        Accounts.parse(document)  # nothing is written that cannot be read again
        aside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(_HEAD)
                yaml.safe_dump(document, file, sort_keys=False)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two people who add somebody at once both succeed. The lock is the folder's: it leaves no file behind."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _new_key_id() -> str:
    return "".join(secrets.choice(_KEY_ID_LETTERS) for _ in range(8))
