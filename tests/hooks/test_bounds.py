"""What one connection may cost, in a running mitmproxy: time, and connections of one address."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from mitmproxy.proxy.layers.http import _http1
from yarl import URL

from comfy_gateway.core.people.callers import TrustedProxies
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.hooks.bounds import BoundsHook, ConnectionBounds
from tests.hooks.running import mitmproxy_before, server
from tests.hooks.stand import Stand

ASK = b"GET /system_stats HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Comfy-User: alice\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mitmproxy makes its CA here once."""
    return tmp_path_factory.mktemp("mitmproxy")


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers each head, whatever follows it."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


async def swallows(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """A server that reads, and never says a word."""
    while await reader.read(1 << 16):
        pass


@asynccontextmanager
async def front(backend: Backend, confdir: Path, bounds: ConnectionBounds) -> AsyncIterator[URL]:
    stand = Stand(home=backend, duty=backend)
    stand.hooks.insert(0, BoundsHook(bounds))
    async with mitmproxy_before(stand, confdir) as url:
        yield URL(url)


async def drip(url: URL, first: bytes, drop: bytes) -> bytes:
    """What is answered until the connection is closed, a drop being sent again and again."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(first)

    async def send() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(drop)
            await writer.drain()

    dripping = asyncio.get_running_loop().create_task(send())
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        dripping.cancel()
        await asyncio.wait([dripping])
        if not dripping.cancelled():
            assert isinstance(dripping.exception(), ConnectionError)
        writer.transport.abort()


@pytest.mark.parametrize(("first", "drop"), [(b"", b"G"), (b"GET / HTTP/1.1\r\n", b"X: 1\r\n")])
async def test_a_head_that_comes_in_drops_is_given_up(confdir: Path, first: bytes, drop: bytes) -> None:
    async with server(answers) as backend, front(backend, confdir, ConnectionBounds(head_s=0.4)) as url:
        assert await drip(url, first, drop) == b""


async def test_a_connection_that_asks_nothing_more_is_closed(confdir: Path) -> None:
    async with server(answers) as backend, front(backend, confdir, ConnectionBounds(head_s=0.4)) as url:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(ASK)
        async with asyncio.timeout(20):
            said = await reader.read()
        assert said.startswith(b"HTTP/1.1 200 OK")
        writer.transport.abort()


async def test_a_body_that_comes_in_drops_is_given_up_and_one_that_flows_is_not(confdir: Path) -> None:
    bounds = ConnectionBounds(head_s=30, body_window_s=0.4, body_bytes_per_s=1000)
    head = ASK.replace(b"GET /system_stats", b"POST /userdata/a").replace(
        b"\r\n\r\n", b"\r\nContent-Length: 90000000\r\n\r\n"
    )
    async with server(swallows) as backend, front(backend, confdir, bounds) as url:
        assert await drip(url, head, b"x") == b""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await drip(url, head, b"x" * 1000)


async def test_one_address_has_a_bounded_number_of_connections(confdir: Path) -> None:
    bounds = ConnectionBounds(per_address=2, exempt=TrustedProxies())
    async with server(answers) as backend, front(backend, confdir, bounds) as url:
        held = [await asyncio.open_connection(url.host, url.port) for _ in range(2)]
        for reader, writer in held:
            writer.write(ASK)
            await reader.readuntil(b"ok")
        reader, refused = await asyncio.open_connection(url.host, url.port)
        refused.write(ASK)
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        for _, writer in (*held, (reader, refused)):
            writer.transport.abort()


async def test_mitmproxy_is_left_as_it_was(confdir: Path) -> None:
    def parts() -> tuple[object, ...]:
        held = vars(_http1.Http1Server)
        return held["read_headers"], held.get("wait"), held.get("read_body"), vars(_http1)["ChunkedReader"]

    before = parts()
    async with server(answers) as backend, front(backend, confdir, ConnectionBounds()):
        assert parts() != before
    assert parts() == before
