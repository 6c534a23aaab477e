"""Stands behind the front door and tells what arrived there: `python -m tests.container.echo_comfyui PORT`.

Any path answers JSON with method, raw path, headers, and size and SHA-256 of the body. /_seen has the count of all
other requests. /bytes?n=4 answers that many bytes. A WebSocket on any path is told what it says.
"""

import asyncio
import hashlib
import sys

from aiohttp import web


class Echo:
    def __init__(self) -> None:
        self.seen = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/_seen":
            return web.json_response(self.seen)
        self.seen += 1
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.talk(request)
        if request.path == "/bytes":
            return web.Response(
                body=b"\x00\xff" * (int(request.query["n"]) // 2), headers={"X-Kept": "as it is"}
            )
        if request.path == "/redirect":
            raise web.HTTPFound(f"http://{request.host}/elsewhere?a=b")
        digest, size_bytes = hashlib.sha256(), 0
        async for part in request.content.iter_chunked(1 << 20):
            digest.update(part)
            size_bytes += len(part)
        told = {
            "method": request.method,
            "path": request.raw_path,
            "headers": [[name, value] for name, value in request.headers.items()],
            "size_bytes": size_bytes,
            "sha256": digest.hexdigest(),
        }
        return web.json_response(told)

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type == web.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == web.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


async def serve(port: int) -> None:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", Echo().answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
