"""What only a running mitmproxy shows: servers that are late, dead or rude, and hooks that raise."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mitmproxy.proxy.layers.http import _http1, _http2

from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.hooks.deadlines import DeadlinesHook
from tests.conditions import wait_for
from tests.hooks.running import Talk, closed_port, deaf_port, mitmproxy_before, server
from tests.hooks.stand import Stand

Answer = tuple[int, dict[str, str], str]
Ask = Callable[..., Coroutine[None, None, Answer]]


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mitmproxy makes its CA here once."""
    return tmp_path_factory.mktemp("mitmproxy")


@asynccontextmanager
async def front_of(
    backend: Backend, confdir: Path, *, answer_timeout_s: float = 30.0, connect_timeout_s: float = 30.0
) -> AsyncIterator[tuple[Stand, Ask]]:
    """A running gateway in front of one duty server, and a client of it."""
    stand = Stand(home=backend, duty=backend)
    stand.deadlines = DeadlinesHook(
        stand.door, stand.pages, connect_timeout_s=connect_timeout_s, answer_timeout_s=answer_timeout_s
    )
    stand.hooks[3] = stand.deadlines
    async with (
        mitmproxy_before(stand, confdir) as url,
        aiohttp.ClientSession(headers={"X-Comfy-User": "alice"}) as http,
    ):

        async def ask(path: str = "/system_stats", method: str = "GET", **more: Any) -> Answer:
            async with http.request(method, url + path, **more) as response:
                return response.status, dict(response.headers), await response.text()

        yield stand, ask


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def says(payload: bytes) -> Talk:
    """A server that reads a request and writes this."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(payload)
        await writer.drain()

    return talk


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_server_that_answers_is_passed_on(confdir: Path) -> None:
    async with server(says(OK)) as backend, front_of(backend, confdir) as (_, ask):
        status, headers, text = await ask()
        assert (status, text) == (200, "ok")
        assert headers["X-Comfy-Session-Source"] == "duty"


async def test_a_server_that_never_answers_is_a_504_and_is_heard_again_later(confdir: Path) -> None:
    quiet = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await quiet.wait()
        writer.write(OK)

    async with server(talk) as backend, front_of(backend, confdir, answer_timeout_s=0.3) as (stand, ask):
        for method, more in (("GET", {}), ("POST", {"data": b"x" * 1000})):
            status, headers, text = await ask("/upload/image" if more else "/system_stats", method, **more)
            assert status == 504
            assert headers["Content-Type"] == "application/json; charset=utf-8"
            assert headers["Retry-After"] == "5"
            assert "upstream_timeout" in text
            assert "127.0.0.1" not in text
        assert stand.pages.late == set()
        assert stand.activity.in_flight(backend.id) == 0
        quiet.set()
        assert (await ask())[0] == 200


async def test_a_late_body_is_nobodys_deadline(confdir: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.6)
        writer.write(b"ok")
        await writer.drain()

    async with server(talk) as backend, front_of(backend, confdir, answer_timeout_s=0.2) as (_, ask):
        assert (await ask())[2] == "ok"


async def test_a_server_that_takes_no_connection_is_a_504(confdir: Path) -> None:
    with deaf_port() as backend:
        async with front_of(backend, confdir, connect_timeout_s=0.3) as (_, ask):
            status, _, text = await ask()
            assert status == 504
            assert "upstream_timeout" in text
            assert str(backend.upstream.port) not in text


async def test_while_a_connection_is_being_made_only_its_own_deadline_counts(confdir: Path) -> None:
    with deaf_port() as backend:
        async with front_of(backend, confdir, connect_timeout_s=0.4, answer_timeout_s=0.05) as (stand, ask):
            status, _, text = await ask()
            assert status == 504
            assert "upstream_timeout" in text
            assert stand.pages.late == set()


async def test_a_gateway_that_has_ended_gives_nobody_up(confdir: Path) -> None:
    may_answer = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await may_answer.wait()
        writer.write(OK)
        await writer.drain()

    async with server(talk) as backend, front_of(backend, confdir, answer_timeout_s=0.2) as (stand, ask):
        asking = asyncio.get_running_loop().create_task(ask())
        await wait_for(lambda: stand.deadlines._timers, "the server is waited for")
        stand.door.close()
        await wait_for(lambda: not stand.deadlines._timers, "the deadline is over")
        may_answer.set()
        assert (await asking)[2] == "ok"


async def test_a_server_that_is_down_is_a_502_without_its_address(confdir: Path) -> None:
    backend = closed_port()
    async with front_of(backend, confdir) as (_, ask):
        status, headers, text = await ask()
        assert status == 502
        assert headers["Retry-After"] == "5"
        assert "upstream_unreachable" in text
        assert "127.0.0.1" not in text
        assert str(backend.upstream.port) not in text


@pytest.mark.parametrize(
    "payload", [b"", b"HTTP/1.1 200", b"no http at all\r\n\r\n"], ids=["nothing", "half a line", "no HTTP"]
)
async def test_a_server_that_breaks_off_is_a_502(confdir: Path, payload: bytes) -> None:
    async with server(says(payload)) as backend, front_of(backend, confdir) as (_, ask):
        status, _, text = await ask()
        assert status == 502
        assert "upstream_unreachable" in text
        assert "no http" not in text


async def test_a_client_that_leaves_ends_its_timer_and_its_transfer(confdir: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(talk) as backend, front_of(backend, confdir) as (stand, ask):
        leaving = asyncio.get_running_loop().create_task(ask("/view?filename=a.png"))
        await wait_for(lambda: stand.activity.in_flight(backend.id) == 1, "the download has begun")
        await wait_for(lambda: stand.deadlines._timers, "somebody waits for the answer")
        leaving.cancel()
        await wait_for(lambda: stand.activity.in_flight(backend.id) == 0, "the download is over")
        assert stand.deadlines._timers == {}


async def test_a_hook_that_raises_reaches_no_server(confdir: Path) -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await read_head(reader))

    async with server(talk) as backend, front_of(backend, confdir) as (stand, ask):
        stand.change(activity=None)
        for path, method, more in (
            ("/view?filename=a.png", "GET", {}),
            ("/upload/image", "POST", {"data": b"x" * 300_000}),
            ("/prompt", "POST", {"json": {"prompt": {}}}),
        ):
            status, headers, text = await ask(path, method, **more)
            assert status == 503
            assert headers["Retry-After"] == "5"
            assert "gateway_error" in text
    assert heard == []


async def test_a_closed_door_answers_503_through_real_sockets(confdir: Path) -> None:
    async with server(says(OK)) as backend, front_of(backend, confdir) as (stand, ask):
        stand.door.close()
        status, headers, _ = await ask()
        assert status == 503
        assert headers["Retry-After"] == "2"
        assert (await ask("/prompt", "POST", json={"prompt": {}}))[0] == 503


async def test_a_malformed_request_is_a_400_without_its_bytes(confdir: Path) -> None:
    async with server(says(OK)) as backend:
        stand = Stand(home=backend, duty=backend)
        async with mitmproxy_before(stand, confdir) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(
                b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n<secret>\r\n\r\n"
            )
            async with asyncio.timeout(10):
                answer = await reader.read()
            writer.close()
            await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"malformed_request" in answer
    assert b"secret" not in answer


async def test_the_gateway_leaves_mitmproxy_as_it_found_it(confdir: Path) -> None:
    def replaced() -> tuple[object, ...]:
        return tuple(
            getattr(holder, name)
            for holder, name in (
                (_http1, "make_error_response"),
                (_http1.Http1Server, "send"),
                (_http2, "format_error"),
            )
        )

    stock = replaced()
    async with server(says(OK)) as backend, front_of(backend, confdir) as (_, ask):
        assert (await ask())[0] == 200
        assert not set(replaced()) & set(stock)
    assert replaced() == stock
