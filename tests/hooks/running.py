"""A real mitmproxy in this process with the real hooks, and servers that misbehave on a socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster

from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.hooks.edge import Edge
from comfy_gateway.hooks.fast_path import FastPathHook
from comfy_gateway.hooks.lifecycle import LifecycleHook
from tests.conditions import wait_for
from tests.hooks.stand import Stand

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def mitmproxy_before(stand: Stand, confdir: Path, **options: Any) -> AsyncIterator[str]:
    """Everything that ``wiring`` loads, listening on a free port; yields the address without a final slash.

    ``options``: more of mitmproxy's own.
    """

    async def start() -> Edge:
        return stand.edge

    async def stop() -> None:
        await stand.tasks.aclose()

    stand.door.close()
    usual = Options(confdir=str(confdir), listen_host="127.0.0.1", listen_port=0)
    master = DumpMaster(usual, with_termlog=False, with_dumper=False)
    lifecycle = LifecycleHook(stand.door, stand.pages, host="127.0.0.1", port=0, start=start, stop=stop)
    # In the order of ``mitmdump -s``: what writes flows comes behind ours.
    saving = master.addons.get("save")
    master.addons.remove(saving)
    master.addons.add(FastPathHook(), lifecycle, *stand.hooks, saving)
    master.options.update(**options)
    running = asyncio.get_running_loop().create_task(master.run())
    try:
        yield await wait_for(lambda: _url(master) if stand.door.edge is not None else "", "mitmproxy listens")
    finally:
        # A process would leave its listening sockets to the system; a test has to close them.
        master.options.update(server=False)
        await master.addons.get("proxyserver").setup_servers()
        master.shutdown()
        await running


def _url(master: DumpMaster) -> str:
    addresses = master.addons.get("proxyserver").listen_addrs()
    return f"http://{addresses[0][0]}:{addresses[0][1]}" if addresses else ""


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[Backend]:
    """A duty server that does with each connection what ``talk`` does."""

    talking: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            with contextlib.suppress(ConnectionError, EOFError):
                await talk(reader, writer)
        finally:
            writer.close()
            talking.discard(task)

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield duty(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()
        while talking:
            task = talking.pop()
            task.cancel()
            await asyncio.wait([task])
        await listening.wait_closed()


@contextmanager
def deaf_port() -> Iterator[Backend]:
    """A server whose machine answers no attempt to connect: its queue of connections is full."""
    with contextlib.ExitStack() as open_sockets:
        listening = open_sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(4):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield duty(port)


def duty(port: int) -> Backend:
    """A duty server on this machine."""
    return Backend("duty-0", Source.DUTY, Upstream("http", "127.0.0.1", port))


def closed_port() -> Backend:
    """A duty server that is down."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return duty(probe.getsockname()[1])
