"""A running agent for tests: inside the test, or as a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.clock import SystemClock
from agent.gpu import GpuReader, GpuReading
from agent.program import running
from agent.settings import Settings, read_settings
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[2]
TOKEN = "c0ffee" * 8
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RENEWING = {**BEARER, "X-Comfy-Gateway-Lease": "1"}
NOBODY = "http://127.0.0.1:9"
"""Where no ComfyUI listens."""


class NoGpu:
    def read(self) -> list[GpuReading]:
        return []

    def close(self) -> None:
        pass


class AgentsFakeClock(FakeClock):
    """The agent's port has the time in seconds."""

    def time(self) -> float:
        return self.now().timestamp()


def environment(home: Path, **changes: str) -> dict[str, str]:
    """The agent's settings for a ComfyUI in this folder; nothing of this machine's environment."""
    return {
        "AGENT_HOST": "127.0.0.1",
        "AGENT_PORT": "0",
        "AGENT_INTERVAL_S": "0.1",
        "AUTH_TOKEN": TOKEN,
        "COMFYUI_URL": NOBODY,
        "AGENT_COMFYUI_DIR": str(home),
    } | changes


def settings(home: Path, **changes: str) -> Settings:
    return read_settings(environment(home, **changes))


@dataclass
class Agent:
    """An agent at work and a client that bears its token."""

    url: str
    client: aiohttp.ClientSession

    async def metrics(self) -> Any:
        async with self.client.get("/metrics") as response:
            assert response.status == 200, await response.text()
            return await response.json()


@asynccontextmanager
async def agent_at(home: Path, gpu_reader: GpuReader | None = None, **changes: str) -> AsyncIterator[Agent]:
    async with (
        running(settings(home, **changes), SystemClock(), gpu_reader or NoGpu()) as url,
        aiohttp.ClientSession(url, headers=BEARER if changes.get("AUTH_TOKEN") != "" else {}) as client,
    ):
        yield Agent(url, client)


@dataclass
class AgentProcess:
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())
            if "listens on " in self.lines[-1]:
                self.url = self.lines[-1].rpartition(" ")[2]


@asynccontextmanager
async def agent_process(
    environ: Mapping[str, str], *, is_measured: bool = False
) -> AsyncIterator[AgentProcess]:
    """`python -m agent` with this environment alone; it has to live until the end of the block.

    is_measured  its lines are not counted for coverage, which would cost more than the agent does
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == "PATH" or (name.startswith("COVERAGE_") and not is_measured)
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent",
        cwd=ROOT,
        env={**inherited, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    agent = AgentProcess(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.read(), name="the agent's log")
        try:
            await wait_for(lambda: agent.url or process.returncode is not None, "the agent", deadline_s=30)
            assert agent.url, agent.log
            yield agent
            assert process.returncode is None, agent.log
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                await process.wait()
