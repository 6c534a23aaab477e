"""Ends of pods' logs in a folder of this machine, one file for each pod, for the gateway's user alone."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MOST_LOGS: Final = 200
"""Of the pods that were written of last; older ones are removed."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


class LogFolder:
    """Implements ``core.ports.LogShelf``. The folder is made 0700 with the first log, files are 0600."""

    def __init__(self, folder: Path, *, most: int = MOST_LOGS) -> None:
        self._folder = folder
        self._most = most

    async def keep(self, pod_name: str, lines: Sequence[str]) -> None:
        """Replace what is kept of this pod. Raises OSError, and ValueError for what is no name of a pod."""
        if _NAME.fullmatch(pod_name) is None:
            raise ValueError(f"{pod_name!r} is no name of a pod")
        await asyncio.to_thread(self._write, pod_name, "\n".join(lines))

    async def read(self, pod_name: str, lines: int) -> Sequence[str] | None:
        """The last lines, at most so many; None where nothing is kept. Raises OSError."""
        if _NAME.fullmatch(pod_name) is None:
            return None
        try:
            text = await asyncio.to_thread((self._folder / f"{pod_name}.log").read_text, "utf-8", "replace")
        except FileNotFoundError:
            return None
        return text.split("\n")[-lines:]

    def _write(self, pod_name: str, text: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._folder / f".{pod_name}.part"
        part.touch(mode=0o600)
        part.write_text(text, "utf-8", "replace")
        log = self._folder / f"{pod_name}.log"
        is_new = not log.exists()
        part.replace(log)
        if is_new:  # only then are there more
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another write has removed it first
            kept = sorted(self._folder.glob("*.log"), key=lambda log: log.stat().st_mtime_ns, reverse=True)
            for log in kept[self._most :]:
                log.unlink()
