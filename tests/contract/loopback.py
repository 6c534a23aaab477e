"""Real servers on loopback, one per test, that answer as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler, *, max_body_bytes: int = 1024**2) -> AsyncIterator[str]:
    """An HTTP server whose every path is answered by ``handler``; yields its origin."""
    app = web.Application(client_max_size=max_body_bytes)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def saying(raw: bytes | None) -> AsyncIterator[str]:
    """A server that reads a request, sends these bytes and hangs up; None: it never says anything."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if raw is None:
            await ended.wait()
        else:
            writer.write(raw)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        ended.set()
        server.close()
        await server.wait_closed()
