"""People who sign in by a token, as ``config/users.yaml`` keeps them, and what a token looks like.

A token is ``cgw_<key id>_<secret>``. The key id finds the account, so that one hash is computed for a guess and not one
for each account, and a name alone gives a stranger nothing to try. Only the token's argon2 hash is kept.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.users import MAX_NAME_LENGTH, is_valid_name

MAX_TOKEN_LENGTH: Final = 200

_KEY_ID: Final = re.compile(r"[a-z0-9]{8}")
_TOKEN: Final = re.compile(r"cgw_([a-z0-9]{8})_[A-Za-z0-9_-]{32,160}")
_HASH_PREFIX: Final = "$argon2"


class AccountsUnreadable(GatewayError):
    """The file cannot be used. The text says why and holds no hash."""


@dataclass(frozen=True, slots=True)
class Account:
    """One person."""

    name: str
    key_id: str
    hash: str = field(repr=False)
    """Argon2's own text: parameters, salt and digest of the whole token."""
    role: Role = Role.USER


@dataclass(frozen=True, slots=True)
class Accounts:
    """All of them."""

    by_name: Mapping[str, Account] = field(default_factory=dict)
    by_key_id: Mapping[str, Account] = field(default_factory=dict)

    @classmethod
    def of(cls, accounts: Iterable[Account]) -> "Accounts":
        """Raises AccountsUnreadable for a name or a key id that is there twice."""
        by_name: dict[str, Account] = {}
        by_key_id: dict[str, Account] = {}
        for account in accounts:
            if account.name in by_name:
                raise AccountsUnreadable(f"the user {account.name!r} is there twice")
            if account.key_id in by_key_id:
                raise AccountsUnreadable(f"{account.name!r} has the id of another user")
            by_name[account.name] = by_key_id[account.key_id] = account
        return cls(by_name, by_key_id)

    @classmethod
    def parse(cls, document: Any) -> "Accounts":
        """From ``{"users": {name: {"id", "hash", "role"}}}``; nothing at all means nobody.

        Raises AccountsUnreadable.
        """
        if document is None:
            return cls()
        users = document.get("users") if isinstance(document, Mapping) else document
        if users is None:
            return cls()
        if not isinstance(document, Mapping) or not isinstance(users, Mapping):
            raise AccountsUnreadable("it must be a mapping with the key 'users', itself a mapping of names")
        return cls.of(_account(name, entry) for name, entry in users.items())

    def document(self) -> dict[str, Any]:
        """What ``parse`` reads."""
        return {
            "users": {
                account.name: {"role": str(account.role), "id": account.key_id, "hash": account.hash}
                for account in self.by_name.values()
            }
        }


def token_of(key_id: str, secret: str) -> str:
    """The token that a person gets to see once; ``secret`` is 32 to 160 of ``A-Za-z0-9_-``."""
    return f"cgw_{key_id}_{secret}"


def key_id_of(token: str) -> str | None:
    """Whose token it says to be, or None for what is no token at all."""
    found = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_LENGTH else None
    return None if found is None else found[1]


def _account(name: Any, entry: Any) -> Account:
    if not isinstance(name, str) or not is_valid_name(name):
        raise AccountsUnreadable(
            f"{name!r} is no name: 1 to {MAX_NAME_LENGTH} printable ASCII characters, quoted where YAML would"
            " read a number or a truth value"
        )
    if not isinstance(entry, Mapping):
        raise AccountsUnreadable(f"{name!r} must be a mapping with 'id' and 'hash'")
    key_id, digest = entry.get("id"), entry.get("hash")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise AccountsUnreadable(f"the 'id' of {name!r} must have eight of a-z and 0-9, in quotes if need be")
    if not isinstance(digest, str) or not digest.startswith(_HASH_PREFIX):
        raise AccountsUnreadable(f"the 'hash' of {name!r} must be one that argon2 made")
    try:
        role = Role(entry.get("role", Role.USER))
    except ValueError:
        raise AccountsUnreadable(f"the 'role' of {name!r} must be user or operator") from None
    return Account(name, key_id, digest, role)
