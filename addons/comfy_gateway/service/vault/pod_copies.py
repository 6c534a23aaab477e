"""What is to be copied from one pod, and what the vault has of it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comfy_gateway.core.errors import PodFilesUnavailable, StorageUnavailable, StoreError
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.vault.paths import PodPaths
from comfy_gateway.core.vault.ports import PodFiles, PodPlace, VaultRows
from comfy_gateway.core.vault.vault import StoredFile, is_storable
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.service.vault.copier import Copier, Outcome, Wish
from comfy_gateway.service.vault.trouble import Trouble, VaultStats

logger = logging.getLogger(__name__)

WORKERS: Final = 3
AGAIN_S: Final = (0.5, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Before a file that could not be copied has its next turn."""
MOST_REFUSED: Final = 1000
"""Impossible names of one pod that are remembered and told."""
TELL_S: Final = 10.0
"""Between two notes to the agent of what is safe."""


@dataclass(slots=True)
class _Turn:
    wish: Wish
    failures: int = 0
    not_before_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Around:
    """What the copies of all pods use together."""

    copier: Copier
    files: PodFiles
    rows: VaultRows
    clock: Clock
    tasks: Tasks
    trouble: Trouble
    stats: VaultStats
    failed: Callable[[str], None]
    """Is called with the key of the user whose pod gave nothing to a try."""


class PodCopies:
    """Copies of one pod. Everything but ``sweep`` and ``tell_safe`` is synchronous or works in its own tasks."""

    def __init__(
        self,
        pod_name: str,
        user_key: str,
        alias: str,
        place: Callable[[], PodPlace | None],
        around: Around,
        on_stored: Callable[[StoredFile], None],
    ) -> None:
        """``place`` says where the pod is, None once it is nowhere."""
        self.pod_name = pod_name
        self.user_key = user_key
        self.alias = alias
        self._place = place
        self._around = around
        self._on_stored = on_stored
        self._stored: dict[FileName, StoredFile] = {}
        """The newest content of each name."""
        self._paths = PodPaths(user_key, alias)
        self._turns: dict[FileName, _Turn] = {}
        self._running: dict[FileName, _Turn] = {}
        self._given_up: set[FileName] = set()
        """Files that will not be had."""
        self._listed: dict[FileName, str] = {}
        """The tag of each file that a sweep has wanted, when it did."""
        self._named_last: dict[FileName, str] = {}
        self._untold: dict[str, str] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._teller: asyncio.Task[None] | None = None
        self._is_loaded = False
        self._loading = asyncio.Lock()
        self._is_closed = False
        self._silent_since_s: float | None = None
        self._counted = 0
        self.knows_agent = False
        """Whether the agent has ever answered."""
        self.named_s = around.clock.monotonic()
        """When a file was last named."""
        self.moved_s = around.clock.monotonic()
        """When something last arrived."""

    @property
    def owed(self) -> int:
        """Files that are still to be copied."""
        return len(self._turns.keys() | self._running.keys())

    @property
    def copied(self) -> int:
        """Files of which the vault has something."""
        return len(self._stored)

    @property
    def given_up(self) -> int:
        """Files that will not be had although they were named."""
        return len(self._given_up)

    @property
    def silent_for_s(self) -> float:
        """How long every question to the pod has been in vain."""
        since_s = self._silent_since_s
        return 0.0 if since_s is None else self._around.clock.monotonic() - since_s

    def want(self, wish: Wish) -> bool:
        """Copy this file if it is not known to be the content that the vault has; whether it is going to be tried."""
        file, prompt_id = wish.file, wish.prompt_id
        if self._is_closed or file in self._turns:
            return not self._is_closed
        if not is_storable(file):
            self._refuse(file)
            return False
        if prompt_id is not None:
            if self._named_last.get(file) == prompt_id and (file in self._stored or file in self._given_up):
                return False  # its ending names again what its events have named
            self._named_last[file] = prompt_id
            self.named_s = self._around.clock.monotonic()
        self._given_up.discard(file)
        self._turns[file] = _Turn(wish)
        self._count()
        self.work()
        return True

    def work(self) -> None:
        """Have what is to be copied copied, as far as the pod can be reached."""
        if self._turns and len(self._workers) < WORKERS and self._place() is not None:
            task = self._around.tasks.start(self._run(), name=f"copies from {self.pod_name}")
            if not task.done():
                self._workers.add(task)
                task.add_done_callback(self._workers.discard)

    def moved(self, size_bytes: int) -> None:
        """See ``vault_copier.Progress``."""
        self._silent_since_s = None
        self.moved_s = self._around.clock.monotonic()
        self._around.stats.bytes_copied += size_bytes

    def failed(self, reason: str) -> None:
        """See ``vault_copier.Progress``."""
        self._around.stats.copies_failed += 1
        logger.debug("a copy from %s: %s", self.pod_name, reason)
        if self._silent_since_s is None:
            self._silent_since_s = self._around.clock.monotonic()
        self._around.failed(self.user_key)

    async def load(self) -> None:
        """Learn what an earlier life of the gateway has stored. Raises StoreUnavailable."""
        async with self._loading:
            if self._is_loaded:
                return
            for stored in await self._around.rows.of_pod(self.pod_name):
                self._stored[stored.file] = stored
                self._paths.take(stored.path)
            self._is_loaded = True

    async def sweep(self) -> int | None:
        """Want what the agent lists and the vault lacks, and tell the agent of the rest that it is safe.

        Returns how many files are wanted; None where the pod's agent keeps no such list. Raises PodFilesUnavailable,
        and StoreUnavailable.
        """
        await self.load()
        place = self._place()
        if place is None:
            raise PodFilesUnavailable("the pod is gone")
        listed = await self._around.files.unfetched(place)
        self.knows_agent = True
        if listed is None:
            return None
        self._silent_since_s = None
        wanted = 0
        for output in listed:
            subfolder, _, filename = output.path.rpartition("/")
            file = FileName(filename, subfolder)
            stored = self._stored.get(file)
            if stored is not None and stored.etag == output.etag:
                self._untold[output.path] = output.etag
            elif file not in self._given_up or self._listed.get(file) != output.etag:
                self._listed[file] = output.etag
                wanted += self.want(Wish(file, by_agent=True))
        await self.tell_safe()
        return wanted

    async def tell_safe(self) -> None:
        """Tell the agent what is safe, so that it need not wait with the pod's end. Raises PodFilesUnavailable."""
        place, told = self._place(), dict(self._untold)
        if place is None or not told:
            return
        await self._around.files.note_fetched(place, list(told.items()))
        self.knows_agent = True
        for path, etag in told.items():
            if self._untold.get(path) == etag:
                del self._untold[path]

    def close(self) -> int:
        """The pod is gone: stop, and return how many named files are lost."""
        self._is_closed = True
        for task in tuple(self._workers):
            task.cancel()
        if self._teller is not None:
            self._teller.cancel()
        lost = {file for file in self._turns.keys() | self._running.keys() if file not in self._stored}
        lost |= {file for file in self._given_up if file in self._named_last}
        self._turns.clear()
        self._running.clear()
        self._count()
        return len(lost)

    # -- the work

    async def _run(self) -> None:
        while not self._is_closed and (turn := await self._next()) is not None:
            file = turn.wish.file
            self._running[file] = self._turns.pop(file)
            try:
                await self._copy(turn)
            finally:
                self._running.pop(file, None)
                self._count()

    async def _next(self) -> _Turn | None:
        """The next turn, once it is due; None when nothing is left for this worker."""
        while True:
            ready = [turn for file, turn in self._turns.items() if file not in self._running]
            if not ready or self._place() is None:
                return None
            turn = min(ready, key=lambda turn: turn.not_before_s)
            wait_s = turn.not_before_s - self._around.clock.monotonic()
            if wait_s <= 0:
                return turn
            await self._around.clock.sleep(min(wait_s, 1.0))

    async def _copy(self, turn: _Turn) -> None:
        wish = turn.wish
        place = self._place()
        if place is None:
            return self._again(turn)
        try:
            await self.load()
            newest = self._stored.get(wish.file)
            outcome, stored = await self._around.copier.copy(
                place, wish, newest=newest, paths=self._paths, progress=self
            )
        except StorageUnavailable as error:
            self._around.trouble.note(str(error))
            self._again(turn)
        except (PodFilesUnavailable, StoreError) as error:
            logger.info("%s of %s is not copied yet: %s", wish.file.path, self.pod_name, error)
            self._again(turn)
        except Exception:
            # The loop's own edge: one file must not keep all the others from being saved.
            logger.exception("%s of %s could not be copied", wish.file.path, self.pod_name)
            self._again(turn)
        else:
            self._note(wish, outcome, stored)

    def _note(self, wish: Wish, outcome: Outcome, stored: StoredFile | None) -> None:
        if stored is None:
            reason = (
                "it is larger than the vault" if outcome is Outcome.TOO_LARGE else "the pod has no such file"
            )
            logger.warning("%s of %s is not kept: %s", wish.file.path, self.pod_name, reason)
            self._given_up.add(wish.file)
            return
        self._stored[wish.file] = stored
        if outcome is Outcome.STORED:
            self._around.trouble.over()
            self._around.stats.files_stored += 1
            self._on_stored(stored)
        if wish.file.type == "output" and stored.etag is not None:
            self._untold[wish.file.path] = stored.etag
            if self._teller is None or self._teller.done():
                self._teller = self._around.tasks.start(self._tell_later(), name=f"notes to {self.pod_name}")

    def _refuse(self, file: FileName) -> None:
        if file not in self._given_up and len(self._given_up) < MOST_REFUSED:
            self._given_up.add(file)
            self._around.stats.names_refused += 1
            logger.warning("pod %s named a file that no disk may have: %.80r", self.pod_name, file.path)

    def _again(self, turn: _Turn) -> None:
        """Another turn later, unless the file was named again meanwhile and has a fresh one."""
        wait_s = AGAIN_S[min(turn.failures, len(AGAIN_S) - 1)]
        if not self._is_closed:
            self._turns.setdefault(
                turn.wish.file,
                _Turn(turn.wish, turn.failures + 1, self._around.clock.monotonic() + wait_s),
            )

    async def _tell_later(self) -> None:
        await self._around.clock.sleep(TELL_S)
        try:
            await self.tell_safe()
        except PodFilesUnavailable as error:
            logger.info("the agent of %s does not know what is safe: %s", self.pod_name, error)

    def _count(self) -> None:
        """Kept up as a difference, for the number is that of all pods."""
        owed = self.owed
        self._around.stats.files_waiting += owed - self._counted
        self._counted = owed
