"""What tests of sign-in meet: a ComfyUI that notes all it is told, and clients at addresses of their own."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from tests.conditions import wait_for


@dataclass
class Heard:
    """One request as ComfyUI got it."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class NotingComfyUI:
    """Answers everything, and keeps what it was asked by."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)

    def of(self, marker: str) -> list[Heard]:
        """Requests whose path holds a text."""
        return [one for one in self.heard if marker in one.path]

    @property
    def everything(self) -> str:
        """All that was ever said, as text."""
        return repr(self.heard)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(Heard(request.method, request.path_qs, dict(request.headers)))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "sid"}
            await socket.send_json({"type": "status", "data": status})
            async for _ in socket:
                pass
            return socket
        if request.path == "/prompt":
            return web.json_response({"prompt_id": str(uuid4()), "number": 1, "node_errors": {}})
        if request.path == "/":
            return web.Response(text="<title>ComfyUI</title>", content_type="text/html")
        await request.read()
        return web.json_response({"queue_running": [], "queue_pending": []})


@asynccontextmanager
async def noting_comfyui() -> AsyncIterator[NotingComfyUI]:
    """On a free port."""
    comfyui = NotingComfyUI()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", comfyui.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        comfyui.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield comfyui
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(
    address: str = "127.0.0.1", *, trust: ssl.SSLContext | None = None, cookies: bool = False
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that connects from a loopback address of its own (all of 127/8 is this machine)."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0), ssl=trust or True)
    # Cookies of IP addresses are kept: that is where tests are.
    jar = aiohttp.CookieJar(unsafe=True) if cookies else aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, url: str, *, method: str = "GET", **more: Any
) -> tuple[int, aiohttp.ClientResponse, str]:
    """Status, answer and text; redirects are shown, not followed."""
    async with http.request(method, url, allow_redirects=False, **more) as answer:
        return answer.status, answer, await answer.text()


async def flows_hold(path: Path, marker: str) -> bytes:
    """What is in a file of flows, once the flow of a path with ``marker`` is in it."""

    def content() -> bytes:
        found = path.read_bytes() if path.exists() else b""
        return found if marker.encode() in found else b""

    return await wait_for(content, f"the flow of {marker}")
