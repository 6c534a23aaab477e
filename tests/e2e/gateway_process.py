"""A real gateway for tests: mitmdump as a process, on a free port, with its log read line by line."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
READY: Final = re.compile(r"The gateway is ready at (https?://\S+)/")
START_WITHIN_S: Final = 60.0
SETTINGS_PREFIXES: Final = (
    "RUNPOD_", "GATEWAY_", "DUTY_", "USER_ID_", "USE_CLIENT", "REQUIRE_", "AUTH_", "TRUSTED_", "ISOLATION",
    "HEALTH_", "PROVIDER", "BUDGET_", "POD_", "PORT", "VAULT_", "UI_", "INTERFACE_",
)  # fmt: skip


@dataclass
class GatewayProcess:
    """A running gateway."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    url: str = ""
    """Without a slash at its end."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> str:
        """Everything that it has written."""
        return "\n".join(self.lines)

    def lines_with(self, text: str) -> list[str]:
        """The lines that contain a text."""
        return [line for line in self.lines if text in line]

    async def wait_for_line(self, pattern: str, *, within_s: float = 20.0) -> str:
        """The first line, past or future, that the pattern is found in."""
        found = re.compile(pattern)
        deadline_s = time.monotonic() + within_s
        while True:
            for line in self.lines:
                if found.search(line):
                    return line
            assert self.process.returncode is None, f"it ended before a line like {pattern!r}:\n{self.log}"
            self._news.clear()
            left_s = deadline_s - time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                raise AssertionError(
                    f"no line like {pattern!r} within {within_s} s in:\n{self.log}"
                ) from None

    async def read(self) -> None:
        """Take in its output until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip())
            self._news.set()
        # Who waits for a line is to learn of the end at once, not when the wait is over.
        await self.process.wait()
        self._news.set()

    async def stop(self, how: signal.Signals = signal.SIGTERM, *, within_s: float = 15.0) -> int:
        """End it by a signal; returns the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        async with asyncio.timeout(within_s):
            return await self.process.wait()


def environment(settings: Mapping[str, str], state_dir: Path) -> dict[str, str]:
    """This process's environment without any setting of a gateway, plus the given ones.

    A key in somebody's ``.env`` must never reach a test: the key is blank and the API is a dead loopback port
    unless the test says otherwise.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIXES)}
    return kept | {
        "PORT": "0",
        "GATEWAY_STATE_DIR": str(state_dir),
        "RUNPOD_CONFIG_PATH": str(ROOT / "tests/e2e/empty.yaml"),
        "RUNPOD_API_KEY": "",
        "RUNPOD_API_BASE": "http://127.0.0.1:9",
        "PYTHONUNBUFFERED": "1",
        **settings,
    }


def mitmdump(*arguments: str, confdir: Path) -> list[str]:
    """The command line of the README, with its CA kept out of the home folder."""
    return [
        str(Path(sys.executable).with_name("mitmdump")),
        "--mode",
        "reverse:http://127.0.0.1:9",
        "--set",
        f"confdir={confdir}",
        "--set",
        "flow_detail=0",
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        "0",
        "-s",
        str(ROOT / "addons/gateway.py"),
        *arguments,
    ]


@asynccontextmanager
async def running_gateway(
    settings: Mapping[str, str],
    *,
    state_dir: Path,
    confdir: Path,
    arguments: tuple[str, ...] = (),
    on_start: Callable[[GatewayProcess], None] | None = None,
    command: Sequence[str] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Start a gateway, wait until it is ready, and end it.

    ``command`` replaces the usual command line, with ``arguments`` and ``confdir``.
    """
    process = await asyncio.create_subprocess_exec(
        *(command or mitmdump(*arguments, confdir=confdir)),
        env=environment(settings, state_dir),
        cwd=state_dir,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    gateway = GatewayProcess(process)
    if on_start is not None:
        on_start(gateway)
    reader = asyncio.get_running_loop().create_task(gateway.read())
    try:
        line = await gateway.wait_for_line(READY.pattern, within_s=START_WITHIN_S)
        found = READY.search(line)
        assert found is not None
        gateway.url = found[1]
        yield gateway
    finally:
        try:
            await gateway.stop()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        finally:
            await reader
