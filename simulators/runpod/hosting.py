"""The processes of the pods: a real server on loopback for each pod's ComfyUI, its agent, and the connections."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from simulators.comfyui import ComfySimulator
from simulators.comfyui.folders import Folders
from simulators.runner import Runner
from simulators.runpod.agent_outputs import Outputs
from simulators.runpod.agent_process import AgentProcess
from simulators.runpod.agent_uploads import Uploads
from simulators.runpod.pods import SimPod

SHUTDOWN_S = 0.2
QUEUE_TIMEOUT_S = 2.0
MAX_PART_BYTES = 90_000_000
CLOCK_TICK_NS = 50_000_000
"""A file's time may lag behind the clock by a tick of the kernel's."""


@dataclass(frozen=True)
class AgentMemory:
    """What a simulated agent knows until it dies: what was fetched, and who is sending just now."""

    outputs: Outputs
    uploads: Uploads


@dataclass(frozen=True)
class Borrowed:
    """A ComfyUI that somebody else runs, and where it keeps its files: the pods' instead of a simulated one."""

    url: str
    """Without a slash at its end."""
    folders: Folders


class Hosting:
    """Starts a pod's ComfyUI when it is first asked for, and takes it down hard with the pod.

    Owns its servers, its tasks and its HTTP session; `close` ends them all.
    """

    def __init__(self, borrowed: Borrowed | None = None) -> None:
        """Every pod shows the ``borrowed`` ComfyUI, where there is one."""
        self._borrowed = borrowed
        self._runners: dict[ComfySimulator, Runner] = {}
        self._urls: dict[ComfySimulator, str] = {}
        self._born_ns: dict[ComfySimulator, int] = {}
        self._memories: dict[ComfySimulator, AgentMemory] = {}
        self._agents: dict[ComfySimulator, AgentProcess] = {}
        self._starting = asyncio.Lock()
        self._starting_agent = asyncio.Lock()
        self._connections: dict[tuple[str, int], set[asyncio.Transport]] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """For requests to the pods' own servers: nothing is decoded, followed, remembered or timed out."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    async def url(self, pod: SimPod) -> str:
        """Base URL, without a slash at the end, of the server that runs the pod's ComfyUI."""
        if self._borrowed is not None:
            return self._borrowed.url
        comfy = pod.comfy
        async with self._starting:
            if comfy not in self._urls:
                runner = Runner(comfy.app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
                await runner.setup()
                self._runners[comfy] = runner
                self._born_ns[comfy] = time.time_ns() - CLOCK_TICK_NS
                self._urls[comfy] = f"http://127.0.0.1:{await runner.listen('127.0.0.1', 0)}"
        return self._urls[comfy]

    def runs(self, pod: SimPod) -> bool:
        """Whether the pod's ComfyUI was started yet."""
        return self._borrowed is not None or pod.comfy in self._runners

    def folders(self, pod: SimPod) -> Folders:
        """Where the pod's ComfyUI keeps its files. Raises RuntimeError before it was started."""
        return pod.comfy.folders if self._borrowed is None else self._borrowed.folders

    async def agent_memory(self, pod: SimPod) -> AgentMemory:
        """Of the pod's simulated agent; a new one after it died."""
        await self.url(pod)
        comfy = pod.comfy
        if comfy not in self._memories:
            most_bytes = int(pod.env.get("AGENT_MAX_PART_BYTES") or MAX_PART_BYTES)
            self._memories[comfy] = AgentMemory(
                Outputs(
                    self.folders(pod).output, self._born_ns.setdefault(comfy, time.time_ns() - CLOCK_TICK_NS)
                ),
                Uploads(self.folders(pod).input, most_bytes),
            )
        return self._memories[comfy]

    async def agent_url(self, pod: SimPod, env: dict[str, str]) -> str:
        """Base URL of the pod's real agent, started in that environment when it is first asked for. Raises
        RuntimeError where it does not start."""
        comfyui_url = await self.url(pod)
        async with self._starting_agent:
            if pod.comfy not in self._agents:
                self._agents[pod.comfy] = await AgentProcess.started(comfyui_url, self.folders(pod), env)
        return self._agents[pod.comfy].url

    def end_agent(self, pod: SimPod) -> None:
        """The agent's process is gone, and what it had in memory."""
        self._memories.pop(pod.comfy, None)
        agent = self._agents.pop(pod.comfy, None)
        if agent is not None:
            self._stop_later(agent.end(), f"end the agent of {pod.name}")

    async def queue(self, pod: SimPod) -> tuple[int, int] | None:
        """(running, pending) as the pod's ComfyUI says it, None where it gives no sensible answer."""
        timeout = aiohttp.ClientTimeout(total=QUEUE_TIMEOUT_S)
        try:
            async with self.session.get(f"{await self.url(pod)}/queue", timeout=timeout) as response:
                if response.status != 200:
                    return None
                told = await response.json()
                return len(told["queue_running"]), len(told["queue_pending"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def connection(self, pod: SimPod, port: int, transport: asyncio.Transport | None) -> Iterator[None]:
        """Meanwhile this connection to the pod's port is open, and breaks when the pod does."""
        if transport is None:
            yield
            return
        transports = self._connections.setdefault((pod.id, port), set())
        transports.add(transport)
        try:
            yield
        finally:
            transports.discard(transport)

    def cut(self, pod: SimPod, port: int | None = None) -> None:
        """Break the open connections to this port of the pod (None: to all)."""
        for (pod_id, at_port), transports in self._connections.items():
            if pod_id == pod.id and port in (None, at_port):
                for transport in transports:
                    transport.abort()

    def stop(self, pod: SimPod) -> None:
        """Break the pod's connections now and stop its ComfyUI and its agent."""
        self.cut(pod)
        self.end_agent(pod)
        runner = self._runners.pop(pod.comfy, None)
        if runner is not None:
            self._stop_later(runner.cleanup(), f"stop {pod.name}")

    def _stop_later(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._stopping)
        await asyncio.gather(*(agent.end() for agent in self._agents.values()))
        self._agents.clear()
        await asyncio.gather(*(runner.cleanup() for runner in self._runners.values()))
        self._runners.clear()
        if self._session is not None:
            await self._session.close()
