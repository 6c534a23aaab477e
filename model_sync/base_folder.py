"""What lies below the base folder, compared with what should."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_sync import bookkeeping, names
from model_sync.errors import UnsafePath
from model_sync.manifest import Entry

State = Literal["present", "missing", "partial", "wrong", "unknown"]
READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Finding:
    """`partial`: a part of it lies there. `wrong`: other bytes than wanted, `reason` says which.

    `unknown`: the right size (or no size is known), but nobody has read the bytes yet; only a quick look says so.
    """

    state: State
    size_bytes: int = 0
    reason: str = ""


def look(
    base: Path,
    entry: Entry,
    *,
    read: bool,
    again: bool = False,
    on_read: Callable[[int], None] = lambda _: None,
) -> Finding:
    """Blocking. `read`: where a checksum is published, the bytes of a file without a fitting record are read.

    `again`: the bytes of every file are. `on_read` is told the number of bytes read so far, and may raise to stop.
    Raises OSError where the disk fails.
    """
    try:
        target = names.inside(base, entry.path)
    except UnsafePath as error:
        return Finding("wrong", reason=str(error))
    try:
        state = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        part = target.with_name(f"{target.name}.part")
        return Finding("partial", part.stat().st_size) if part.exists() else Finding("missing")
    if not target.is_file():
        return Finding("wrong", reason="not a file")
    if entry.size_bytes not in {None, state.st_size}:
        return Finding("wrong", state.st_size, f"{state.st_size} bytes, not {entry.size_bytes}")
    record = bookkeeping.recall(base, entry.path)
    current = record if record and bookkeeping.fits(record, state) else None
    if current and not again:
        sha256 = current.sha256
    elif entry.sha256 is None and not again:
        return Finding("present", state.st_size)
    elif read or again:
        sha256 = file_sha256(target, on_read)
        # With nothing published, what once came is what must stay.
        expected = entry.sha256 or (current.sha256 if current else None)
        if expected in {None, sha256}:
            bookkeeping.remember(base, entry.path, state, sha256, ours=bool(record and record.ours))
        else:
            return Finding("wrong", state.st_size, f"sha256 {sha256} in place of {expected}")
    else:
        return Finding("unknown", state.st_size)
    if entry.sha256 not in {None, sha256}:
        return Finding("wrong", state.st_size, f"sha256 {sha256} in place of {entry.sha256}")
    return Finding("present", state.st_size)


def file_sha256(file: Path, on_read: Callable[[int], None] = lambda _: None) -> str:
    digest = hashlib.sha256()
    count = 0
    with file.open("rb", buffering=0) as opened:
        while block := opened.read(READ_BYTES):
            digest.update(block)
            count += len(block)
            on_read(count)
    return digest.hexdigest()
