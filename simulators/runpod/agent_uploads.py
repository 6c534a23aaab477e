"""Inputs that a pod's agent takes in parts: docs/agent.md, "Inputs for ComfyUI"."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from simulators.runpod.agent_outputs import number, place_of

PARTS_FOLDER = ".agent-uploads"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Upload:
    """What is meant to arrive; the same three things are the same upload."""

    path: str
    total_bytes: int
    sha256: str

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.total_bytes}:{self.sha256}:{self.path}".encode()).hexdigest()[:32]


class Uploads:
    def __init__(self, root: Path, max_part_bytes: int) -> None:
        self._root = root
        self._max_part_bytes = max_part_bytes
        self._busy: set[str] = set()

    async def progress(self, path: str, query: Mapping[str, str]) -> web.Response:
        upload = _upload(path, query)
        return _told(upload, await asyncio.to_thread(self._received, upload))

    async def receive(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> web.Response:
        upload = _upload(path, query)
        offset = number(query, "offset", 0)
        if int(headers.get("Content-Length", 0)) > self._max_part_bytes:
            return _refused(413, f"a part has at most {self._max_part_bytes} bytes")
        if upload.id in self._busy:
            return _refused(409, "another request is sending this file")
        self._busy.add(upload.id)
        try:
            return await self._take(upload, offset, pieces, keeps=headers.get("If-None-Match") == "*")
        finally:
            self._busy.discard(upload.id)

    async def _take(
        self, upload: Upload, offset: int, pieces: AsyncIterator[bytes], *, keeps: bool
    ) -> web.Response:
        received = await asyncio.to_thread(self._received, upload)
        place, part = place_of(self._root, upload.path), self._part(upload)
        if received == upload.total_bytes and not part.is_file() and place.is_file():
            return _told(upload, received, complete=True)
        if keeps and place.is_file():
            return _refused(412, "another file has this name")
        if offset != received:
            return _refused(409, "go on at received_bytes", received)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        async for piece in pieces:
            received += len(piece)
            too_large = received - offset > self._max_part_bytes
            if too_large or received > upload.total_bytes:
                await asyncio.to_thread(_cut_to, part, offset)
                message = "the part is too large" if too_large else "there are more bytes than total says"
                return _refused(413 if too_large else 400, message, offset)
            await asyncio.to_thread(_append, part, piece)
        if received < upload.total_bytes:
            return _told(upload, received)
        if await asyncio.to_thread(_sha256, part) != upload.sha256:
            part.unlink()
            return _refused(422, "the bytes do not have this sha256: begin again", 0)
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
        return _told(upload, received, complete=True, status=201)

    def _part(self, upload: Upload) -> Path:
        return self._root / PARTS_FOLDER / f"{upload.id}.part"

    def _received(self, upload: Upload) -> int:
        """How many bytes are there; all of them where the very file is."""
        if self._part(upload).is_file():
            return self._part(upload).stat().st_size
        place = place_of(self._root, upload.path)
        if not place.is_file() or place.stat().st_size != upload.total_bytes:
            return 0
        return upload.total_bytes if _sha256(place) == upload.sha256 else 0


def _upload(path: str, query: Mapping[str, str]) -> Upload:
    sha256 = query.get("sha256", "").lower()
    if not SHA256.fullmatch(sha256):
        raise web.HTTPBadRequest(text="sha256: 64 hexadecimal digits, of the whole file")
    return Upload(path, number(query, "total"), sha256)


def _told(
    upload: Upload, received_bytes: int, *, complete: bool | None = None, status: int = 200
) -> web.Response:
    is_complete = received_bytes == upload.total_bytes if complete is None else complete
    return web.json_response(
        {
            "upload": upload.id,
            "path": upload.path,
            "state": "complete" if is_complete else "partial",
            "received_bytes": received_bytes,
            "total_bytes": upload.total_bytes,
        },
        status=status,
    )


def _refused(status: int, error: str, received_bytes: int | None = None) -> web.Response:
    told = {"error": error} if received_bytes is None else {"error": error, "received_bytes": received_bytes}
    return web.json_response(told, status=status)


def _append(part: Path, piece: bytes) -> None:
    with part.open("ab") as file:
        file.write(piece)


def _cut_to(part: Path, size_bytes: int) -> None:
    with part.open("r+b") as file:
        file.truncate(size_bytes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
