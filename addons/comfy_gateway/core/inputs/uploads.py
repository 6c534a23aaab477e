"""What the gateway remembers of input files: what a name means to a user, and what lies on which server."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.people.identity import plain_address
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.upstream import Backend, Source

CARRIED: Final = "carried"
"""Subfolder of the input folder for files that were no input where they came from."""


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, by their checksum."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A content that the gateway has itself."""

    content: Content
    used_at: float
    """When it was last of use, by the disk: seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Upload:
    """From this moment on, and until a later one, the owner means this content by this name."""

    owner_key: str
    """See ``owner_keys``."""
    file: FileName
    """In the form of ``core.inputs.refs.canonical``."""
    content: Content
    at: datetime
    is_listed: bool = True
    """False for a name that the gateway made up in a clash: it is known, but in no list."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A server has this content under this name."""

    place: str
    """See ``place_of``."""
    file: FileName
    content: Content
    is_carried: bool = False
    """The gateway put it there for a prompt; nobody uploaded it to that server."""
    etag: str = ""
    """What the server said of the content when it was read from there; empty when it was not."""


def place_of(backend: Backend) -> str:
    """What stays the same as long as a server has its files: a pod's name, which is never given twice, or the address
    of a duty server, whose number changes with the settings.
    """
    return backend.id if backend.source is Source.PRIVATE else backend.upstream.url("/")


def owner_keys(user: UserId | None, peer: str) -> tuple[str, ...]:
    """Whose uploads a request means, its own first.

    A script may upload without any name and then send prompts that bear a ``client_id``: what came from its address
    without a name is its own as well. Nobody's upload belongs to the address that it came from.
    """
    address = plain_address(peer)
    keys = [] if user is None else [user.key]
    if address is not None and (user is None or user.kind is not IdKind.ADDRESS):
        keys.append(UserId(IdKind.ADDRESS, address).key)
    return tuple(keys) or (UserId(IdKind.ADDRESS, "unknown").key,)


def carried_file(content: Content, filename: str) -> FileName:
    """The name as an input of what was no input before: no other content can have it, and nobody guesses it."""
    return FileName(filename, f"{CARRIED}/{content.sha256[:32]}", "input")


def best_name(copies: Iterable[Copy], wanted: FileName) -> FileName | None:
    """Under which of these names a prompt that names ``wanted`` finds the content: that very name, else one that was
    made of it in a clash, or made for the content alone.

    The same content under any other name is somebody else's business: that file may be overwritten, and its name is
    nobody's but its owner's.
    """
    stem, ending = posixpath.splitext(wanted.filename)
    in_a_clash = re.compile(re.escape(stem) + r" \([0-9]+\)" + re.escape(ending))
    best = None
    for copy in copies:
        file = copy.file
        if file == wanted:
            return file
        is_beside = file.type == wanted.type and file.subfolder == wanted.subfolder
        is_carried = file.type == "input" and file.subfolder == f"{CARRIED}/{copy.content.sha256[:32]}"
        if best is None and (is_carried or (is_beside and in_a_clash.fullmatch(file.filename))):
            best = file
    return best
