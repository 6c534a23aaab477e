"""A witness of real servers on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.witness import SocketWitness
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def server(port: int = 0) -> AsyncIterator[int]:
    """Takes every socket and ends them with itself."""
    sockets: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        sockets.add(response)
        await response.send_json({"type": "status", "data": {}})
        async for _ in response:
            pass
        return response

    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for response in sockets:
            await response.close()
        await runner.cleanup()


@pytest.fixture
async def witness() -> AsyncIterator[SocketWitness]:
    async with aiohttp.ClientSession() as session:
        yield SocketWitness(session, SystemClock(), pause_s=0.01)


def at(port: int) -> Backend:
    return Backend("duty-0", Source.DUTY, Upstream("http", "127.0.0.1", port))


def in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


async def test_a_server_that_stays_is_unbroken_from_the_moment_the_socket_opened(
    witness: SocketWitness,
) -> None:
    before = datetime.now(UTC)
    async with server() as port:
        watching = asyncio.create_task(witness.run([at(port)]))
        await eventually(lambda: witness.is_unbroken_since("duty-0", in_a_minute()))
        assert witness.is_unbroken_since("duty-0", datetime.now(UTC))
        assert not witness.is_unbroken_since("duty-0", before)
        assert not witness.is_unbroken_since("duty-1", in_a_minute())
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_restart_breaks_it_for_all_that_came_before(witness: SocketWitness) -> None:
    async with server() as port:
        watching = asyncio.create_task(witness.run([at(port)]))
        await eventually(lambda: witness.is_unbroken_since("duty-0", in_a_minute()))
        accepted_at = datetime.now(UTC)
    await eventually(lambda: not witness.is_unbroken_since("duty-0", in_a_minute()))
    async with server(port):
        await eventually(lambda: witness.is_unbroken_since("duty-0", in_a_minute()))
        assert not witness.is_unbroken_since("duty-0", accepted_at)
        watching.cancel()
        await asyncio.wait([watching])


async def test_what_is_no_comfyui_is_no_witness_and_ends_nothing(witness: SocketWitness) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    watching = asyncio.create_task(witness.run([at(port)]))
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not watching.done()
    assert not witness.is_unbroken_since("duty-0", in_a_minute())
    watching.cancel()
    await asyncio.wait([watching])
    await runner.cleanup()
