"""What model_sync remembers about a base folder, in `.model_sync/` inside it.

    .model_sync/claims/<path>.lock      who is at work on this file (model_sync.claims)
    .model_sync/placed/<path>.json      what lies at <path>, as it was when its bytes were last read

Files of several gigabytes on a network volume take minutes to read, so a file whose size and time of change are those
of its record is not read again at every start. Losing this folder loses nothing but that time.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from model_sync import atomic, names


@dataclass(frozen=True)
class Record:
    """`ours` tells that model_sync put the file there, and so may remove it again."""

    size_bytes: int
    mtime_ns: int
    sha256: str
    ours: bool


def _file(base: Path, path: str) -> Path:
    return base / names.BOOKKEEPING / "placed" / f"{path}.json"


def claim_file(base: Path, path: str) -> Path:
    return base / names.BOOKKEEPING / "claims" / f"{path}.lock"


def remember(base: Path, path: str, state: os.stat_result, sha256: str, *, ours: bool) -> None:
    record = Record(state.st_size, state.st_mtime_ns, sha256, ours)
    file = _file(base, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, asdict(record), durable=False)


def recall(base: Path, path: str) -> Record | None:
    """None where there is no record, or one that cannot be read."""
    try:
        return Record(**json.loads(_file(base, path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def forget(base: Path, path: str) -> None:
    _file(base, path).unlink(missing_ok=True)


def remembered(base: Path) -> list[str]:
    """The paths that have a record, sorted."""
    folder = base / names.BOOKKEEPING / "placed"
    return sorted(
        str(file.relative_to(folder).as_posix()).removesuffix(".json") for file in folder.rglob("*.json")
    )


def fits(record: Record, state: os.stat_result) -> bool:
    """Whether the file is still what the record speaks of."""
    return (record.size_bytes, record.mtime_ns) == (state.st_size, state.st_mtime_ns)
