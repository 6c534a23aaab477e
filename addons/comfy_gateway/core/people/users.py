"""Who a request belongs to, once ``core.people.identity`` has decided it.

The kind keeps name spaces apart: a ``client_id`` that happens to read ``alice`` is not the user who was
named ``alice`` by a header, and neither can reach the other's pod.
"""

from dataclasses import dataclass
from enum import StrEnum

MAX_NAME_LENGTH = 128


class IdKind(StrEnum):
    """Where an identity came from, in falling order of trust."""

    NAMED = "named"
    """By header, query key or cookie: the client, or a proxy in front of us, said the name."""
    BROWSER = "browser"
    """An anonymous browser that carries our own signed cookie."""
    CLIENT = "client"
    """ComfyUI's ``client_id``."""
    ADDRESS = "address"
    """The peer's IP address; merges everybody behind one NAT."""


@dataclass(frozen=True, slots=True)
class UserId:
    """One user. Equal users share one session, one pod and one duty server."""

    kind: IdKind
    name: str
    """1 to 128 printable ASCII characters, as shown in ``X-Comfy-Session-User``."""

    @property
    def key(self) -> str:
        """Text that is unique over all kinds; what the store and the log keep."""
        return f"{self.kind}:{self.name}"

    @classmethod
    def from_key(cls, key: str) -> "UserId":
        """Read what ``key`` wrote. Raises ValueError for anything else."""
        kind, separator, name = key.partition(":")
        if not separator:
            raise ValueError(f"{key!r} is no user key")
        return cls(IdKind(kind), name)


def is_valid_name(name: str) -> bool:
    """Whether a name has 1 to 128 characters, all of them printable ASCII, none a space at an end."""
    return 0 < len(name) <= MAX_NAME_LENGTH and name.isascii() and name.isprintable() and name == name.strip()
