"""ComfyUI's folders, and what may be named in them. Blocking; called in threads.

A path is relative, below its folder, and made of ordinary names: nothing hidden, no symbolic link on the way.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOST_PATH_CHARACTERS = 1024
MOST_NAME_BYTES = 255


class BadPath(ValueError):
    """A path that this agent never touches."""


def checked(told: str) -> PurePosixPath:
    """Raises BadPath unless every part is an ordinary name."""
    parts = told.split("/")
    if len(told) > MOST_PATH_CHARACTERS or not all(_is_ordinary(part) for part in parts):
        raise BadPath("a relative path without hidden names, '..', '\\' and control characters is meant")
    return PurePosixPath(*parts)


def _is_ordinary(part: str) -> bool:
    return (
        part != ""
        and not part.startswith(".")
        and "\\" not in part
        and all(letter.isprintable() for letter in part)
        and len(part.encode("utf-8", "surrogateescape")) <= MOST_NAME_BYTES
    )


@dataclass(frozen=True, slots=True)
class FoundFile:
    path: str
    size_bytes: int
    modified_ns: int

    @property
    def etag(self) -> str:
        """The same as in the ETag header when it is read: another one means other content."""
        return f"{self.modified_ns:x}-{self.size_bytes:x}"


class Folder:
    """One of ComfyUI's folders; it may itself be a link, and need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def existing(self, path: PurePosixPath) -> Path | None:
        """Where this regular file is; None where there is none. Raises BadPath for a link on the way."""
        place = self._without_links(path)
        return place if place.is_file() else None

    def new(self, path: PurePosixPath) -> Path:
        """Where this file may be put; its folders are made. Raises BadPath for a link on the way, or a file or folder
        where the other is meant, and OSError."""
        place = self._without_links(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadPath("a file is in the place of a folder") from error
        if place.is_dir():
            raise BadPath("a folder has this name")
        return self._without_links(path)

    def files(self) -> Iterator[FoundFile]:
        """All regular files that may be named, in the order of their paths. Links are passed over. An unreadable
        folder raises OSError; one that vanishes meanwhile does not."""
        if self.root.is_dir():
            yield from _files_below(self.root, "")

    def _without_links(self, path: PurePosixPath) -> Path:
        place = self.root
        for part in path.parts:
            place = place / part
            if place.is_symlink():
                raise BadPath("a symbolic link is on the way")
        return place


def _files_below(folder: Path, prefix: str) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    # As if all paths were sorted: "a.png" < "a/b.png" < "a0.png"
    for entry in sorted(found, key=lambda one: one.name + ("/" if one.is_dir(follow_symlinks=False) else "")):
        if not _is_ordinary(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder / entry.name, f"{prefix}{entry.name}/")
            continue
        try:
            seen = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(seen.st_mode):
            yield FoundFile(prefix + entry.name, seen.st_size, seen.st_mtime_ns)
