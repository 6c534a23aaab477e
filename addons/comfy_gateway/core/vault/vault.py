"""Outputs of private pods that the gateway keeps, and the addresses under which it shows them.

An address (``alias/subfolder/name``) means what its server shows under it. A node may write a file again under the
same name; the page that asks for it then gets the new content, as from a plain ComfyUI. The vault keeps both: the
newest content has the plain address, also after the pod is gone, so that the pod's end changes no picture; each earlier
one moves to an address of its own, ``alias@1/subfolder/name``, which never means anything else, and the history of the
prompt that made it lists it there.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from comfy_gateway.core.files.files import ALIASED_TYPES, FileName, shown

MAX_NAME_CHARACTERS: Final = 1024

_VERSION: Final = re.compile(r"(?P<alias>[a-z0-9-]+)@(?P<version>[1-9][0-9]{0,8})")
_STRONG_TAG: Final = re.compile(r"[!#-~]{1,128}")
_TIME_AND_SIZE: Final = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,12})")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One content of one file of a pod."""

    user_key: str
    pod_name: str
    alias: str
    """The pod's, as clients see it."""
    file: FileName
    """As the pod named it, without the alias."""
    version: int
    """From 1, in the order in which the contents under this name were stored."""
    path: str
    """Below the vault's root, with slashes."""
    sha256: str
    """In hexadecimal."""
    size_bytes: int
    etag: str | None
    """What the pod called this content, without quotes; None where it gave no name that can be told on."""
    stored_at: datetime
    """UTC."""
    prompt_id: str | None = None
    """The prompt whose output brought it here; None for a file that the sweep found."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a shown name says about a file of a pod."""

    alias: str
    file: FileName
    """As the pod named it."""
    version: int | None = None
    """The superseded content that is meant; None for the newest."""


def address_of(name: FileName) -> Address | None:
    """Read a shown name; None when it has no first subfolder that could be an alias."""
    first, _, rest = name.subfolder.partition("/")
    if not first or name.type not in ALIASED_TYPES:
        return None
    file = replace(name, subfolder=rest)
    found = _VERSION.fullmatch(first)
    if found is None:
        return Address(first, file)
    return Address(found["alias"], file, int(found["version"]))


def shown_name(stored: StoredFile, *, is_newest: bool) -> FileName:
    """The address under which this content is shown."""
    return shown(stored.file, stored.alias if is_newest else f"{stored.alias}@{stored.version}")


def version_named_by(prompt_id: str, ended_at: datetime | None, versions: Sequence[StoredFile]) -> StoredFile:
    """Which content a prompt's output means, of all that were stored under that name (not empty, oldest first).

    The one that this prompt brought; else the newest that was there when the prompt ended, for it was answered from
    ComfyUI's cache; else the first.
    """
    own = [stored for stored in versions if stored.prompt_id == prompt_id]
    if own:
        return own[-1]
    there = [stored for stored in versions if ended_at is not None and stored.stored_at <= ended_at]
    return there[-1] if there else versions[0]


def is_storable(file: FileName) -> bool:
    """Whether a name that a pod told may be asked for and kept: a plain file below the folder of its type.

    A pod runs other people's code, so its names are anybody's: no way up or out, nothing unprintable, no lengths that
    no file system has.
    """
    parts = file.subfolder.split("/") if file.subfolder else []
    return (
        file.type in ALIASED_TYPES
        and len(file.path) <= MAX_NAME_CHARACTERS
        and file.path.isprintable()
        and "\\" not in file.path
        and "/" not in file.filename
        and file.filename not in {"", ".", ".."}
        and ".." not in parts
        and not file.subfolder.startswith("/")
    )


def file_key(alias: str, file: FileName) -> str:
    """A short text that only this name of this pod has."""
    told = "\0".join((alias, file.type, file.subfolder, file.filename))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def usable_etag(header: str | None) -> str | None:
    """The opaque part of an ETag, or None for none and for what could not be sent on."""
    tag = (header or "").strip().removeprefix("W/")
    if len(tag) < 2 or tag[0] != '"' or tag[-1] != '"' or not _STRONG_TAG.fullmatch(tag[1:-1]):
        return None
    return tag[1:-1]


def modified_ns_of(etag: str | None) -> int | None:
    """When the content was last written, where the tag is aiohttp's ``<mtime in ns>-<size>``, both hexadecimal."""
    found = _TIME_AND_SIZE.fullmatch(etag or "")
    return None if found is None else int(found[1], 16)


def size_of(etag: str | None) -> int | None:
    """The content's size in bytes, where the tag is aiohttp's."""
    found = _TIME_AND_SIZE.fullmatch(etag or "")
    return None if found is None else int(found[2], 16)
