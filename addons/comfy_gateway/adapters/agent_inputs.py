"""Brings input files into a pod by its agent, in parts (docs/agent.md, "Inputs for ComfyUI")."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, urlencode, urljoin

import aiohttp
import orjson
from yarl import URL

from comfy_gateway.adapters.agent import LEASE_HEADER
from comfy_gateway.core.errors import AgentUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import AgentPlace
from comfy_gateway.core.inputs.uploads import Content

PART_BYTES: Final = 64 * 1024 * 1024
"""Below what the agent and the proxy in front of it take, and little enough to be sent again."""
LEAST_PART_BYTES: Final = 1024 * 1024
MOST_FAILURES: Final = 6
"""In a row; whatever brings the file further begins a new row."""
PAUSE_S: Final = 1.0
CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0
LEAST_BYTES_PER_S: Final = 128 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024

_CHUNK_BYTES: Final = 256 * 1024
_TAKEN: Final = frozenset({200, 201})
_FINAL: Final = {
    400: "does not take that name",
    401: "does not accept our token",
    404: "does not take files",
    405: "does not take files",
    507: "has no room left",
}


@dataclass(frozen=True, slots=True)
class _Told:
    status: int
    is_complete: bool
    received_bytes: int | None


class HttpAgentInputs:
    """Implements ``core.inputs.ports.AgentInputs``. The session stays its owner's and is not closed here."""

    def __init__(
        self, session: aiohttp.ClientSession, *, part_bytes: int = PART_BYTES, pause_s: float = PAUSE_S
    ) -> None:
        self._session = session
        self._part_bytes = part_bytes
        self._pause_s = pause_s

    async def put_input(
        self, place: AgentPlace, file: FileName, source: Path, content: Content, *, replace: bool
    ) -> bool:
        """See the port."""
        opened = await asyncio.to_thread(source.open, "rb")
        try:
            upload = _Upload(self._session, place, file, content, is_replacing=replace)
            return await self._send(upload, opened)
        finally:
            opened.close()

    async def _send(self, upload: "_Upload", opened: BinaryIO) -> bool:
        part_bytes, offset, failures, reason = self._part_bytes, 0, 0, ""
        was_thrown_away = False
        is_lost = True  # an earlier attempt may have left a part of it there
        while failures < MOST_FAILURES:
            try:
                told = await (upload.progress() if is_lost else upload.put(opened, offset, part_bytes))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failures, is_lost, reason = failures + 1, True, f"broke off ({type(error).__name__})"
                await asyncio.sleep(self._pause_s)
                continue
            if told.status in _FINAL:
                raise AgentUnavailable(f"the agent {_FINAL[told.status]}")
            if told.status == 412:
                return False
            if told.status in _TAKEN and told.is_complete:
                return True
            if told.received_bytes is not None and (
                told.received_bytes > offset or (is_lost and told.status == 200)
            ):
                failures = 0 if told.received_bytes > offset else failures
                offset, is_lost = told.received_bytes, False
                continue
            failures, is_lost, reason = failures + 1, True, f"answered {told.status}"
            if told.status == 413 and part_bytes > LEAST_PART_BYTES:
                part_bytes //= 2
            elif told.status == 422 and not was_thrown_away:
                was_thrown_away, offset = True, 0  # it may have been another's bytes that we went on from
            elif told.status == 422:
                raise AgentUnavailable("the agent got other bytes than were sent")
            else:
                await asyncio.sleep(self._pause_s)
        raise AgentUnavailable(f"the agent {reason}")


class _Upload:
    """One file on its way to one pod."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        place: AgentPlace,
        file: FileName,
        content: Content,
        *,
        is_replacing: bool,
    ) -> None:
        self._session = session
        self._place = place
        self._path = quote(file.path, safe="/")
        self._content = content
        self._conditions = {} if is_replacing else {"If-None-Match": "*"}

    async def progress(self) -> _Told:
        """How far it is there."""
        return await self._ask("GET", {}, None, 0)

    async def put(self, opened: BinaryIO, offset: int, most_bytes: int) -> _Told:
        """Send the bytes from ``offset`` on."""
        length = min(most_bytes, self._content.size_bytes - offset)
        return await self._ask("PUT", {"offset": offset}, _part(opened, offset, length), length)

    async def _ask(
        self, method: str, more: dict[str, int], body: AsyncIterator[bytes] | None, length: int
    ) -> _Told:
        query = urlencode({"total": self._content.size_bytes, "sha256": self._content.sha256, **more})
        headers = {"Authorization": f"Bearer {self._place.token}", LEASE_HEADER: "1", **self._conditions}
        if body is not None:
            headers |= {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        async with self._session.request(
            method,
            URL(urljoin(self._place.url, f"files/input/{self._path}?{query}"), encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=ANSWER_S + length / LEAST_BYTES_PER_S, sock_connect=CONNECT_S
            ),
        ) as response:
            return _told(response.status, await response.content.read(MAX_ANSWER_BYTES))


async def _part(opened: BinaryIO, offset: int, length: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(opened.seek, offset)
    while length:
        chunk = await asyncio.to_thread(opened.read, min(_CHUNK_BYTES, length))
        if not chunk:
            raise OSError("the file is shorter than it was")
        length -= len(chunk)
        yield chunk


def _told(status: int, body: bytes) -> _Told:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        return _Told(status, is_complete=False, received_bytes=None)
    received = told.get("received_bytes")
    is_number = isinstance(received, int) and not isinstance(received, bool) and received >= 0
    return _Told(status, told.get("state") == "complete", received if is_number else None)
