"""/files: what ComfyUI made, to be fetched, and inputs for it, to be sent. docs/agent.md has the JSON."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from multidict import CIMultiDict

from agent.folders import BadPath, checked
from agent.outputs import Outputs
from agent.uploads import SHA256, Progress, Upload, UploadRefused, Uploads

MOST_LISTED = 10_000
USUALLY_LISTED = 1000
MOST_TOTAL_BYTES = 1 << 40
SILENCE_S = 60.0
"""An upload that sends nothing for so long is broken off."""
CHUNK_BYTES = 256 * 1024
NUMBER = re.compile(r"[0-9]{1,15}")


class ExactFile(web.FileResponse):
    """The named file itself, never a compressed neighbour of it (x.png.gz for x.png), with Range and ETag.

    `delivered` is called with the ETag when all of it was handed to the network.
    """

    def __init__(self, path: str, delivered: Callable[[str], None]) -> None:
        super().__init__(
            path, headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"}
        )
        self._delivered = delivered

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        headers = CIMultiDict(request.headers)
        headers.popall("Accept-Encoding", None)
        writer = await super().prepare(request.clone(headers=headers))
        if request.method == "GET" and self.status == 200 and self.etag is not None:
            self._delivered(self.etag.value)
        return writer


class FileRoutes:
    def __init__(self, outputs: Outputs, uploads: Uploads, *, max_part_bytes: int) -> None:
        self._outputs = outputs
        self._uploads = uploads
        self._max_part_bytes = max_part_bytes

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/files/output", self.list_outputs),
            web.post("/files/output/fetched", self.note_fetched),
            web.get("/files/output/{path:.+}", self.read_output),
            web.get("/files/input/{path:.+}", self.upload_progress, allow_head=False),
            web.put("/files/input/{path:.+}", self.receive_part),
        ]

    async def list_outputs(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", USUALLY_LISTED)
        if not 1 <= limit <= MOST_LISTED:
            raise web.HTTPBadRequest(text=f"limit: 1 to {MOST_LISTED}")
        try:
            page, following = await asyncio.to_thread(
                self._outputs.page,
                after=request.query.get("after", ""),
                limit=limit,
                only_unfetched=request.query.get("unfetched") == "1",
            )
        except OSError as error:
            raise web.HTTPServiceUnavailable(text=f"the folder cannot be read: {error.strerror}") from error
        files = [
            {
                "path": one.file.path,
                "size_bytes": one.file.size_bytes,
                "modified": one.file.modified_ns / 1e9,
                "etag": one.file.etag,
                "fetched": one.is_fetched,
            }
            for one in page
        ]
        return web.json_response({"files": files, "next": following})

    async def read_output(self, request: web.Request) -> web.StreamResponse:
        told = request.match_info["path"]
        try:
            place = await asyncio.to_thread(self._outputs.place, checked(told))
        except BadPath as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        if place is None:
            raise web.HTTPNotFound(text="there is no such file")
        return ExactFile(str(place), lambda etag: self._outputs.fetched(told, etag))

    async def note_fetched(self, request: web.Request) -> web.Response:
        """What somebody has safe, as listed: {"files": [{"path", "etag"}…]}."""
        try:
            told = await request.json()
            pairs = [(one["path"], one["etag"]) for one in told["files"]]
            is_text = all(isinstance(word, str) for pair in pairs for word in pair)
        except (ValueError, TypeError, KeyError):
            is_text = False
        if not is_text:
            raise web.HTTPBadRequest(text='{"files": [{"path": "…", "etag": "…"}]} is meant')
        for path, etag in pairs:
            self._outputs.fetched(path, etag)
        return web.json_response({"noted": len(pairs)})

    async def upload_progress(self, request: web.Request) -> web.Response:
        upload = _upload(request)
        try:
            return _told(upload, await self._uploads.progress(upload))
        except BadPath as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    async def receive_part(self, request: web.Request) -> web.Response:
        upload = _upload(request)
        offset = _number(request, "offset", 0)
        length = request.content_length
        if length is not None and length > self._max_part_bytes:
            return _refused(413, f"a part has at most {self._max_part_bytes} bytes", None)
        try:
            progress = await self._uploads.receive(
                upload, offset, _chunks(request), replace=request.headers.get("If-None-Match") != "*"
            )
        except BadPath as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except UploadRefused as refusal:
            return _refused(refusal.status, str(refusal), refusal.received_bytes)
        except TimeoutError:
            return _refused(408, f"nothing came for {SILENCE_S:g} s", None)
        except OSError as error:
            return _refused(507, f"cannot be written: {error.strerror}", None)
        return _told(upload, progress)


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(SILENCE_S):
            chunk = await request.content.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _upload(request: web.Request) -> Upload:
    try:
        path = checked(request.match_info["path"])
    except BadPath as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    sha256 = request.query.get("sha256", "").lower()
    if not SHA256.fullmatch(sha256):
        raise web.HTTPBadRequest(text="sha256: 64 hexadecimal digits, of the whole file")
    total = _number(request, "total", None)
    if total > MOST_TOTAL_BYTES:
        raise web.HTTPBadRequest(text=f"total: at most {MOST_TOTAL_BYTES}")
    return Upload(path, total, sha256)


def _number(request: web.Request, name: str, default: int | None) -> int:
    told = request.query.get(name)
    if told is None and default is not None:
        return default
    if told is None or not NUMBER.fullmatch(told):
        raise web.HTTPBadRequest(text=f"{name}: a whole number")
    return int(told)


def _told(upload: Upload, progress: Progress) -> web.Response:
    return web.json_response(
        {
            "upload": upload.id,
            "path": str(upload.path),
            "state": "complete" if progress.is_complete else "partial",
            "received_bytes": progress.received_bytes,
            "total_bytes": upload.total_bytes,
        },
        status=201 if progress.is_new else 200,
    )


def _refused(status: int, message: str, received_bytes: int | None) -> web.Response:
    told = (
        {"error": message} if received_bytes is None else {"error": message, "received_bytes": received_bytes}
    )
    return web.json_response(told, status=status)
