"""Which relative paths may be written below the base folder, judged by their text and then by the real folders.

A manifest comes from the net as easily as the models do, and its paths are also read on Windows machines that share
the volume: what any of the systems would read as "elsewhere" or as a device is refused everywhere.
"""

import re
import unicodedata
from pathlib import Path, PurePosixPath

from model_sync.errors import UnsafePath

# Our own records and locks (see `model_sync.bookkeeping`), and what stands beside a file that is being fetched.
BOOKKEEPING = ".model_sync"
OWN_SUFFIXES = (".part", ".part.json")

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_SEGMENT_BYTES = 240  # 255 less the longest suffix that we append


def checked(path: str) -> str:
    """`path` itself, if it is a plain relative path with `/`. Raises UnsafePath with the reason."""

    def refuse(reason: str) -> UnsafePath:
        return UnsafePath(f"path {path!r} {reason}")

    if not path:
        raise refuse("is empty")
    if path.startswith(("/", "~")):
        raise refuse("is absolute")
    if found := _FORBIDDEN.search(path):
        raise refuse(f"contains {found.group()!r}")
    for segment in path.split("/"):
        if segment in {"", ".", ".."}:
            raise refuse(f"contains the segment {segment!r}")
        if segment != segment.strip() or segment.endswith("."):
            raise refuse("has a segment that begins or ends with a space, or ends with a dot")
        if _RESERVED.fullmatch(segment.split(".")[0].rstrip()):
            raise refuse(f"contains {segment!r}, a device on Windows")
        if len(segment.encode("utf-8", errors="surrogatepass")) > _SEGMENT_BYTES:
            raise refuse(f"has a segment of more than {_SEGMENT_BYTES} bytes")
        if any(unicodedata.category(character) in {"Cs", "Cf"} for character in segment):
            raise refuse("contains an invisible character")
    if path.split("/", maxsplit=1)[0].casefold() == BOOKKEEPING or path.casefold().endswith(OWN_SUFFIXES):
        raise refuse("is a name that model_sync uses itself")
    return path


def same_file_key(path: str) -> str:
    """Equal for two paths that are one file on some system: letter case and composed letters do not count."""
    return unicodedata.normalize("NFC", path).casefold()


def below(base: Path, path: str) -> Path:
    """Where `path` lies, with its folders made. `base` exists and is resolved.

    Raises UnsafePath when a symbolic link on the way, or at its end, leads out of `base`. Judged before each use,
    since a folder can be replaced by a link at any time.
    """
    target = base / PurePosixPath(checked(path))
    _refuse_escape(base, target, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _refuse_escape(base, target, path)
    return target


def inside(base: Path, path: str) -> Path:
    """As `below`, for a look only: no folder is made."""
    target = base / PurePosixPath(checked(path))
    _refuse_escape(base, target, path)
    return target


def _refuse_escape(base: Path, target: Path, path: str) -> None:
    if not target.resolve().is_relative_to(base):
        raise UnsafePath(f"path {path!r} leads out of the base folder through a symbolic link")
