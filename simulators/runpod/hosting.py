"""The processes of the pods: a real server on loopback for each pod's ComfyUI, and the connections."""

import asyncio
import contextlib
from collections.abc import Iterator

import aiohttp
from aiohttp import web

from simulators.comfyui import ComfySimulator
from simulators.runpod.pods import SimPod

SHUTDOWN_S = 0.2
QUEUE_TIMEOUT_S = 2.0


class Hosting:
    """Starts a pod's ComfyUI when it is first asked for, and takes it down hard with the pod.

    Owns its servers, its tasks and its HTTP session; `close` ends them all.
    """

    def __init__(self) -> None:
        self._runners: dict[ComfySimulator, web.AppRunner] = {}
        self._urls: dict[ComfySimulator, str] = {}
        self._starting = asyncio.Lock()
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
        comfy = pod.comfy
        async with self._starting:
            if comfy not in self._urls:
                runner = web.AppRunner(comfy.app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
                await runner.setup()
                self._runners[comfy] = runner
                await web.TCPSite(runner, "127.0.0.1", 0, backlog=128).start()
                self._urls[comfy] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self._urls[comfy]

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
        """Break the pod's connections now and stop its ComfyUI."""
        self.cut(pod)
        runner = self._runners.pop(pod.comfy, None)
        if runner is not None:
            task = asyncio.get_running_loop().create_task(runner.cleanup(), name=f"stop {pod.name}")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._stopping)
        await asyncio.gather(*(runner.cleanup() for runner in self._runners.values()))
        self._runners.clear()
        if self._session is not None:
            await self._session.close()
