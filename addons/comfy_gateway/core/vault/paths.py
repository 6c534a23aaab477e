"""Readable paths for kept files: ``user/date/alias/subfolder/name``.

The database says which file is where; a path only has to be one that every file system takes, and that no other
content has. Names come from pods, which run other people's code.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from comfy_gateway.core.files.files import FileName

MAX_PART_BYTES: Final = 160
"""Of one name, in UTF-8: file systems take 255, and a number may be added."""
MAX_SUFFIX_CHARACTERS: Final = 10
MAX_DEPTH: Final = 16

_FORBIDDEN: Final = frozenset('<>:"/\\|?*~')


class PodPaths:
    """The paths of the kept files of one pod, to choose further ones.

    Nobody else has a path with this pod's alias in it, so these are all that a new one can clash with.
    """

    def __init__(self, user_key: str, alias: str, taken: Iterable[str] = ()) -> None:
        self._user = f"{_readable(user_key)}-{_hash(user_key)}"
        self._alias = alias
        self._files: set[str] = set()
        self._folders: set[str] = set()
        for path in taken:
            self.take(path)

    def choose(self, file: FileName, at: datetime) -> str:
        """A path for a content of this file, which is taken from then on.

        Names that not every file system takes are changed and end in a hash of what they were; a path that is taken
        gets a number, also where only the case differs, or where a file is in the way of a folder.
        """
        root = self._alias if file.type == "output" else f"{self._alias}-{file.type}"
        folders = [part for part in file.subfolder.split("/") if part not in {"", "."}]
        if len(folders) > MAX_DEPTH:
            folders = [_hash(file.subfolder)]
        folder = "/".join([self._user, at.date().isoformat(), root, *map(_safe, folders)])
        if any(_key(above) in self._files for above in _above(folder + "/")):
            folder = f"{self._user}/{at.date().isoformat()}/{root}~{_hash(file.subfolder)}"
        stem, suffix = _split(_safe(file.filename))
        path, number = f"{folder}/{stem}{suffix}", 1
        while _key(path) in self._files or _key(path) in self._folders:
            number += 1
            path = f"{folder}/{stem}~{number}{suffix}"
        self.take(path)
        return path

    def take(self, path: str) -> None:
        """Note a path that is in use."""
        self._files.add(_key(path))
        self._folders.update(_key(above) for above in _above(path))

    def give_back(self, path: str) -> None:
        """Nothing was stored under this path after all."""
        self._files.discard(_key(path))


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _key(path: str) -> str:
    """Equal for paths that are one file on some file systems."""
    return unicodedata.normalize("NFC", path).casefold()


def _readable(user_key: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", user_key)[:64].strip(".-") or "user"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix (with its dot, or empty)."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem and len(suffix) <= MAX_SUFFIX_CHARACTERS else (name, "")


def _safe(part: str) -> str:
    """A name that every file system takes: the very same where it is one, else a similar one with a hash."""
    text = unicodedata.normalize("NFC", part)
    text = "".join(letter if letter.isprintable() and letter not in _FORBIDDEN else "_" for letter in text)
    text = text.lstrip(".").rstrip(". ")
    if text and text == part and len(text.encode()) <= MAX_PART_BYTES:
        return text
    stem, suffix = _split(text)
    stem = stem.encode()[: MAX_PART_BYTES - 60].decode(errors="ignore")
    return f"{stem}~{_hash(part)}{suffix}"
