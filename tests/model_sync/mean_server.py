"""A file server that does everything a download may meet, as told: over real sockets, by aiohttp.

    python -m tests.model_sync.mean_server      one file of any size, made on the fly (see `main`)

A `MeanFile` is served under a path; what happens to its requests is a list of `Mood`s, one used up by each request, and
a `manner` for all requests after that.
"""

import asyncio
import hashlib
import json
import re
import ssl
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

_RANGE = re.compile(r"bytes=(\d+)-")
PIECE_BYTES = 256 << 10


def content(size_bytes: int, seed: int = 0) -> bytes:
    """The same bytes for the same arguments, without a pattern that shifted bytes would hide in."""
    return b"".join(block(number, seed) for number in range(-(-size_bytes // PIECE_BYTES)))[:size_bytes]


def block(number: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(f"{seed} {number}".encode()).digest(PIECE_BYTES)


@dataclass(frozen=True)
class Mood:
    """How one request is answered. The default is honestly.

    `status`: this and nothing else. `cut_after_bytes`: the connection is reset after so many bytes of the body.
    `ignore_range`: 200 and all of it. `shift`: 206 for another range than was asked. `total`: a wrong total.
    `short`: a body that ends early without an error (the declared length is short too). `trickle_s`: a pause after
    each 1 KB. `corrupt`: one wrong byte. `redirect`: to this address. `stall`: silence after the head.
    """

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    cut_after_bytes: int | None = None
    ignore_range: bool = False
    shift: int = 0
    total: int | None = None
    short: int | None = None
    trickle_s: float = 0.0
    corrupt: bool = False
    redirect: str = ""
    stall: bool = False
    chunked: bool = False
    endless: bool = False


HONEST = Mood()


@dataclass
class MeanFile:
    """`read(start, end)` are the bytes. `manner` answers every request that no mood is left for."""

    size_bytes: int
    read: Callable[[int, int], bytes]
    moods: deque[Mood] = field(default_factory=deque)
    manner: Mood = HONEST
    etag: str | None = '"v1"'
    served_bytes: int = 0
    requests: list[web.BaseRequest] = field(default_factory=list)


def file_of(data: bytes, *moods: Mood, manner: Mood = HONEST, etag: str | None = '"v1"') -> MeanFile:
    return MeanFile(len(data), lambda start, end: data[start:end], deque(moods), manner, etag)


def made_up(size_bytes: int, *moods: Mood, manner: Mood = HONEST, seed: int = 0) -> MeanFile:
    """Of any size: nothing of it is kept."""

    def read(start: int, end: int) -> bytes:
        first, last = start // PIECE_BYTES, -(-end // PIECE_BYTES)
        whole = b"".join(block(number, seed) for number in range(first, last))
        return whole[start - first * PIECE_BYTES : end - first * PIECE_BYTES]

    return MeanFile(size_bytes, read, deque(moods), manner)


def made_up_sha256(size_bytes: int, seed: int = 0) -> str:
    digest = hashlib.sha256()
    for number in range(-(-size_bytes // PIECE_BYTES)):
        piece = block(number, seed)
        digest.update(piece[: size_bytes - number * PIECE_BYTES])
    return digest.hexdigest()


class MeanServer:
    """`url("/x")` on 127.0.0.1, `other_url` on localhost: another host to every rule about hosts."""

    def __init__(self) -> None:
        self.files: dict[str, MeanFile] = {}
        self.asked: Counter[str] = Counter()
        # The Authorization of every request, by the host that it was sent to and the path.
        self.authorizations: list[tuple[str, str, str | None]] = []
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def other_url(self, path: str) -> str:
        return f"http://localhost:{self.port}{path}"

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["MeanServer"]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.authorizations.append(
            (request.host.split(":")[0], request.path, request.headers.get("Authorization"))
        )
        file = self.files.get(request.path)
        if file is None:
            return web.Response(status=404)
        file.requests.append(request)
        mood = file.moods.popleft() if file.moods else file.manner
        if mood.redirect:
            return web.Response(status=302, headers={"Location": mood.redirect})
        if mood.status:
            return web.Response(status=mood.status, headers=dict(mood.headers), body=mood.body)
        return await self._serve(request, file, mood)

    async def _serve(self, request: web.Request, file: MeanFile, mood: Mood) -> web.StreamResponse:
        asked = _RANGE.fullmatch(request.headers.get("Range", ""))
        only_if = request.headers.get("If-Range")
        start = int(asked.group(1)) if asked else 0
        partial = asked is not None and not mood.ignore_range and only_if in {None, file.etag}
        if partial and start >= file.size_bytes:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{file.size_bytes}"})
        start = max(0, start + mood.shift) if partial else 0
        total = file.size_bytes if mood.total is None else mood.total
        end = file.size_bytes if mood.short is None else min(file.size_bytes, start + mood.short)
        headers = dict(mood.headers)
        if file.etag:
            headers["ETag"] = file.etag
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        if mood.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = end - start if partial or mood.total is None else mood.total
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if mood.stall:
            await asyncio.sleep(3600)
        await self._write(request, response, file, mood, start, end)
        return response

    async def _write(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: MeanFile,
        mood: Mood,
        start: int,
        end: int,
    ) -> None:
        at, sent = start, 0
        piece_bytes = 1024 if mood.trickle_s else PIECE_BYTES
        while at < end or mood.endless:
            piece = bytearray(file.read(at, min(end, at + piece_bytes)) or b"x" * piece_bytes)
            if mood.corrupt and at == start:
                piece[len(piece) // 2] ^= 0xFF
            if mood.cut_after_bytes is not None and sent + len(piece) >= mood.cut_after_bytes:
                await response.write(bytes(piece[: mood.cut_after_bytes - sent]))
                if request.transport is not None:
                    request.transport.close()
                return
            await response.write(bytes(piece))
            file.served_bytes += len(piece)
            at += len(piece)
            sent += len(piece)
            if mood.trickle_s:
                await asyncio.sleep(mood.trickle_s)
        await response.write_eof()


async def main(arguments: list[str]) -> None:
    """SIZE_BYTES CUT_EVERY_BYTES: the acceptance server. Prints {"port": …}, and its counts when stdin ends.

    /file cuts every CUT_EVERY_BYTES, lies about Range once, answers 429 and 503 and redirects to /moved at another
    host; /corrupt is a mirror with one wrong byte.
    """
    size_bytes, cut_bytes = int(arguments[0]), int(arguments[1])
    server = MeanServer()
    async with server.running():
        cut = Mood(cut_after_bytes=cut_bytes)
        server.files["/corrupt"] = made_up(size_bytes, manner=Mood(corrupt=True))
        server.files["/moved"] = made_up(
            size_bytes,
            cut,
            Mood(status=503),
            cut,
            Mood(ignore_range=True),
            cut,
            Mood(shift=1),
            cut,
            manner=cut,
        )
        away = Mood(redirect=server.other_url("/moved"))
        server.files["/file"] = made_up(
            size_bytes, Mood(status=429, headers=(("Retry-After", "1"),)), manner=away
        )
        print(json.dumps({"port": server.port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps({"asked": server.asked, "authorizations": server.authorizations}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
