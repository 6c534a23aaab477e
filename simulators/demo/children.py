"""Programs that the demo has started and that it ends."""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

START_WITHIN_S: Final = 60.0
LINES_KEPT: Final = 15
LINE_LIMIT_BYTES: Final = 1 << 20


class ChildFailed(Exception):
    """A program has ended, or has not come up; the text says which, and its last lines."""


class Child:
    """One program. Its output is read by ``until`` first, by ``follow`` then, and by ``end`` at last."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._last_lines: deque[str] = deque(maxlen=LINES_KEPT)

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> Self:
        """Raises ChildFailed where there is no such program.

        In a session of its own: Ctrl-C reaches the demo alone, which then ends the children in order.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                limit=LINE_LIMIT_BYTES,
            )
        except OSError as error:
            raise ChildFailed(f"{name} cannot be started: {command[0]}: {error.strerror}") from None
        return cls(name, process)

    @property
    def pid(self) -> int:
        """Of the process, also after its end."""
        return self._process.pid

    async def until(self, pattern: re.Pattern[str], within_s: float = START_WITHIN_S) -> re.Match[str]:
        """Read on to the first line in which the pattern is found. Raises ChildFailed."""
        try:
            async with asyncio.timeout(within_s):
                while (line := await self._line()) is not None:
                    if found := pattern.search(line):
                        return found
        except TimeoutError:
            raise self._failed(f"is not ready after {within_s:g} s") from None
        raise self._failed("has ended")

    async def follow(self, hear: Callable[[str], None]) -> None:
        """Hand on each line. Returns never: the end of the output is raised as ChildFailed."""
        while (line := await self._line()) is not None:
            hear(line)
        raise self._failed("has ended")

    async def end(self, within_s: float, hear: Callable[[str], None] = lambda _line: None) -> None:
        """SIGTERM, and SIGKILL when it has not ended in time. Its last lines are heard."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(within_s):
                while (line := await self._line()) is not None:
                    hear(line)
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _line(self) -> str | None:
        """The next line, or None at the end of the output."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            return None
        text = line.decode(errors="replace").rstrip()
        self._last_lines.append(text)
        return text

    def _failed(self, how: str) -> ChildFailed:
        lines = "".join(f"\n  {line}" for line in self._last_lines)
        return ChildFailed(f"{self.name} {how}" + (f"; its last lines:{lines}" if lines else ""))
