"""One process at a time works on one file, also when two pods share a network volume.

A claim is a small file that its holder touches every 10 s (filelock's SoftFileLease). It needs no locks of the file
system, which many network volumes keep to one machine: exclusive creation and times of change are enough. The claim of
a process that died on this host is free at once, that of another host 30 s after its last touch, measured by the
clock of whoever waits.

A lease can be lost while its holder still runs, say when the volume hangs for a minute. The holder then stops before
its next write (`check`), so that a file is never put into place by somebody who lost the claim to it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

from model_sync import bookkeeping
from model_sync.errors import LostClaim
from model_sync.threads import to_end

# The same for every process on a volume: a lease of another duration is refused.
LEASE_S = 30.0


class Claim:
    def __init__(self, lease: SoftFileLease, path: str) -> None:
        self._lease = lease
        self._path = path

    def check(self) -> None:
        """Raises LostClaim when this file is no longer ours to write."""
        if self._lease.compromise is not None:
            raise LostClaim(f"another process took over {self._path}")


class Claims:
    """Those of one process below one base folder."""

    def __init__(self, base: Path, *, lease_s: float = LEASE_S) -> None:
        self._base = base
        self._lease_s = lease_s
        # Kept from one refusal to the next: a lease tells a dead claim by having watched it for a while.
        self._refused: dict[str, SoftFileLease] = {}

    @asynccontextmanager
    async def claim(self, path: str) -> AsyncIterator[Claim | None]:
        """A claim on `path`, or None when another process has it. Never waits for that process.

        Ask again and again: only so is noticed that the other process touches its claim no more.
        """
        lease = self._refused.pop(path, None) or self._lease(path)
        try:
            try:
                await to_end(lambda: lease.acquire(timeout=0))
            except Timeout:
                self._refused[path] = lease
                yield None
                return
            yield Claim(lease, path)
        finally:
            if lease.is_locked:
                await to_end(lease.release)

    def _lease(self, path: str) -> SoftFileLease:
        file = bookkeeping.claim_file(self._base, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Acquired and released in whichever thread of the pool is free.
        return SoftFileLease(file, lease_duration=self._lease_s, thread_local=False)
