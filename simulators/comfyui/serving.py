"""Serves a simulator on a socket of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from simulators.comfyui.simulator import ComfySimulator
from simulators.comfyui.sockets import MOST_BODY_BYTES
from simulators.runner import Runner

SHUTDOWN_S = 0.5


@dataclass(frozen=True)
class Served:
    """`url` ends with a slash."""

    url: str
    port: int


@asynccontextmanager
async def serve(
    simulator: ComfySimulator, host: str = "127.0.0.1", port: int = 0, prefix: str = ""
) -> AsyncIterator[Served]:
    """Listens inside the block; port 0 takes a free one. With a prefix everything lies below that path."""
    path = prefix.strip("/")
    app = simulator.app()
    if path:
        root = web.Application(client_max_size=MOST_BODY_BYTES)
        root.add_subapp(f"/{path}", app)
        app = root
    runner = Runner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        bound = await runner.listen(host, port)
        yield Served(f"http://{host}:{bound}/{path}/" if path else f"http://{host}:{bound}/", bound)
    finally:
        await runner.cleanup()
