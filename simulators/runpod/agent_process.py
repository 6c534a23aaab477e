"""The real agent beside a simulated ComfyUI: a process of its own, `python -m agent`."""

import asyncio
import os
import sys
from pathlib import Path

from simulators.comfyui.folders import Folders

PROJECT = Path(__file__).parents[2]
START_S = 30.0
LISTENING = "listens on "


class AgentProcess:
    """One agent from its start to its end. `url` has no slash at its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._log: list[str] = []
        self._reading: asyncio.Task[None] | None = None
        self.url = ""

    @classmethod
    async def started(cls, comfyui_url: str, folders: Folders, pod_env: dict[str, str]) -> "AgentProcess":
        """Returns once it listens. Of the pod's environment it gets AUTH_TOKEN, AGENT_… and RUNPOD_…; without
        RUNPOD_POD_ID it keeps no lease. Raises RuntimeError with its log where it ends instead."""
        told = {
            name: value
            for name, value in pod_env.items()
            if name == "AUTH_TOKEN" or name.startswith(("AGENT_", "RUNPOD_"))
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name == "PATH" or name.startswith("COVERAGE_")
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent",
            cwd=PROJECT,
            env={
                **inherited,
                **told,
                "AGENT_HOST": "127.0.0.1",
                "AGENT_PORT": "0",
                "AGENT_COMFYUI_DIR": str(folders.user.parent),
                "AGENT_OUTPUT_DIR": str(folders.output),
                "AGENT_INPUT_DIR": str(folders.input),
                "COMFYUI_URL": comfyui_url,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        agent = cls(process)
        listening = asyncio.Event()
        agent._reading = asyncio.get_running_loop().create_task(
            agent._read(listening), name=f"log of the agent {process.pid}"
        )
        try:
            async with asyncio.timeout(START_S):
                await listening.wait()
        except TimeoutError:
            await agent.end()
        if not agent.url:
            await agent.end()
            raise RuntimeError("the agent did not start: " + "\n".join(agent._log))
        return agent

    async def _read(self, listening: asyncio.Event) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = line.decode(errors="replace").rstrip()
            self._log = [*self._log[-99:], told]
            if LISTENING in told and not self.url:
                self.url = told.rpartition(LISTENING)[2]
                listening.set()
        listening.set()

    async def end(self) -> None:
        """At once, as with the container."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if self._reading is not None:
            await self._reading
