"""What a run tells: bars on a terminal, JSON lines elsewhere, and the status file that the agent reads.

JSON lines: {"event": "…", …}. Events: plan, waiting, started, continued, again, mirror_left,
unpublished, fetched, present, missing, set_aside, progress, done. Sizes in bytes under names that end in _bytes.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from model_sync import atomic
from model_sync.errors import BadSetting

State = Literal["idle", "running", "failed"]

JSON_EVERY_S = 5.0
BARS_EVERY_S = 0.25
STATUS_EVERY_S = 1.0


@dataclass
class Amount:
    done_bytes: int = 0
    total_bytes: int = 0


class Screen(Protocol):
    """Where a run is told. `tick` is called again and again with how far each file is, by its path."""

    every_s: float

    def event(self, name: str, fields: dict[str, object]) -> None: ...

    def tick(self, files: dict[str, Amount], whole: Amount) -> None: ...


class Lines:
    """One JSON object a line."""

    every_s = JSON_EVERY_S

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: Amount | None = None

    def event(self, name: str, fields: dict[str, object]) -> None:
        try:
            print(json.dumps({"event": name, **fields}, ensure_ascii=False), file=self._out, flush=True)
        except BrokenPipeError:
            # Nobody reads any more. The models are wanted all the same, and what is still buffered must go somewhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._out.fileno())
            os.close(nowhere)

    def tick(self, files: dict[str, Amount], whole: Amount) -> None:
        """A line only when something has moved."""
        if whole == self._last:
            return
        self._last = Amount(whole.done_bytes, whole.total_bytes)
        running = {
            path: amount.done_bytes
            for path, amount in files.items()
            if 0 < amount.done_bytes < amount.total_bytes
        }
        self.event(
            "progress", {"done_bytes": whole.done_bytes, "total_bytes": whole.total_bytes, "files": running}
        )


class Bars:
    """A bar for each file under way and one for all of them."""

    every_s = BARS_EVERY_S
    _QUIET = frozenset({"started", "progress", "plan"})

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole = progress.add_task("all", total=None)
        self._bars: dict[str, TaskID] = {}

    @classmethod
    @contextmanager
    def on(cls, console: Console) -> Iterator["Bars"]:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=False),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as progress:
            yield cls(progress)

    def event(self, name: str, fields: dict[str, object]) -> None:
        if name not in self._QUIET:
            told = ", ".join(
                f"{key} {value}" for key, value in fields.items() if value not in ("", None, [], ())
            )
            self._progress.console.print(f"{name}: {told}", markup=False, highlight=False)

    def tick(self, files: dict[str, Amount], whole: Amount) -> None:
        self._progress.update(self._whole, completed=whole.done_bytes, total=whole.total_bytes or None)
        for path, amount in files.items():
            under_way = 0 < amount.done_bytes < amount.total_bytes
            if under_way and path not in self._bars:
                self._bars[path] = self._progress.add_task(path, total=amount.total_bytes)
            if bar := self._bars.get(path):
                self._progress.update(bar, completed=amount.done_bytes, total=amount.total_bytes)
                if not under_way:
                    self._progress.remove_task(self._bars.pop(path))


class StatusFile:
    """{"state": "idle|running|failed", "done_bytes": …, "total_bytes": …}, always whole.

    While a run lives it is written at least every 10 s, so that a reader can tell a run that was killed by the age of
    the file.
    """

    ALIVE_EVERY_S = 10.0

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last: dict[str, object] = {}
        self._written_at = float("-inf")

    def write(self, state: State, whole: Amount) -> None:
        content: dict[str, object] = {
            "state": state,
            "done_bytes": whole.done_bytes,
            "total_bytes": whole.total_bytes,
        }
        now = time.monotonic()
        if self._path is None or (content == self._last and now - self._written_at < self.ALIVE_EVERY_S):
            return
        try:
            atomic.write_json(self._path, content, durable=False)
        except OSError as error:
            if not self._last:
                raise BadSetting(f"--status-file {self._path}: {error.strerror}") from error
            # The disk may be full, of which the run itself will tell.
            return
        self._last, self._written_at = content, now


class Report:
    """What transfers tell, and what becomes of it."""

    def __init__(self, screen: Screen, status: StatusFile) -> None:
        self._screen = screen
        self._status = status
        self._files: dict[str, Amount] = {}

    def expect(self, path: str, total_bytes: int | None) -> None:
        amount = self._files.setdefault(path, Amount())
        if total_bytes is not None:
            amount.total_bytes = total_bytes

    def came(self, path: str, done_bytes: int) -> None:
        amount = self._files.setdefault(path, Amount())
        amount.done_bytes = done_bytes
        amount.total_bytes = max(amount.total_bytes, done_bytes)

    def event(self, name: str, **fields: object) -> None:
        self._screen.event(name, fields)

    @property
    def whole(self) -> Amount:
        return Amount(
            sum(amount.done_bytes for amount in self._files.values()),
            sum(amount.total_bytes for amount in self._files.values()),
        )

    def state(self, state: State) -> None:
        """Blocks for one small write."""
        self._screen.tick(self._files, self.whole)
        self._status.write(state, self.whole)

    async def keep_telling(self) -> None:
        """Until it is cancelled."""
        pause_s = min(self._screen.every_s, STATUS_EVERY_S)
        told_at = float("-inf")
        while True:
            whole = self.whole
            if time.monotonic() - told_at >= self._screen.every_s:
                self._screen.tick(self._files, whole)
                told_at = time.monotonic()
            await asyncio.to_thread(self._status.write, "running", whole)
            await asyncio.sleep(pause_s)
