"""What model_sync once put below the base folder and no manifest wants any more.

Only files that it put there itself, and that are still as it put them: what people copied there is theirs.
"""

from dataclasses import dataclass
from pathlib import Path

from model_sync import bookkeeping, names
from model_sync.claims import Claims
from model_sync.errors import UnsafePath
from model_sync.manifest import Entry
from model_sync.threads import to_end


@dataclass(frozen=True)
class Leftover:
    path: str
    size_bytes: int


def leftovers(base: Path, entries: tuple[Entry, ...]) -> list[Leftover]:
    """Of all entries of the manifest, whichever groups are selected. Blocking."""
    wanted = {names.same_file_key(entry.path) for entry in entries if entry.repository is None}
    repositories = tuple(
        f"{names.same_file_key(entry.path)}/" for entry in entries if entry.repository is not None
    )
    found = []
    for path in bookkeeping.remembered(base):
        key = names.same_file_key(path)
        if key in wanted or key.startswith(repositories):
            continue
        try:
            file = names.inside(base, path)
            state = file.stat()
        except (UnsafePath, OSError):
            continue
        record = bookkeeping.recall(base, path)
        if record is not None and record.ours and bookkeeping.fits(record, state) and not file.is_symlink():
            found.append(Leftover(path, state.st_size))
    return found


async def remove(base: Path, leftover: Leftover) -> bool:
    """False when another process is at work on it."""
    async with Claims(base).claim(leftover.path) as held:
        if held is None:
            return False
        await to_end(lambda: names.inside(base, leftover.path).unlink(missing_ok=True))
        await to_end(lambda: bookkeeping.forget(base, leftover.path))
    return True
