"""Reads a pod's files, by its ComfyUI and by its agent."""

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin

import aiohttp
import orjson
from yarl import URL

from comfy_gateway.adapters.agent import LEASE_HEADER
from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_answer, bounded_get
from comfy_gateway.core.errors import PodFilesUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.requests.upstream import front_door_headers
from comfy_gateway.core.vault.ports import FileAnswer, Found, ListedOutput, PodPlace
from comfy_gateway.core.vault.vault import usable_etag

CHUNK_BYTES: Final = 1024 * 1024
MAX_LIST_BYTES: Final = 32 * 1024 * 1024
MAX_PAGES: Final = 100
PAGE_FILES: Final = 10_000
"""The most that the agent puts into one page."""
NOTED_AT_ONCE: Final = 2000

_RANGE: Final = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)")
_NOT_FOUND: Final = {404: Found.NOTHING, 410: Found.NOTHING, 400: Found.REFUSED, 403: Found.REFUSED}


class HttpPodFiles:
    """Implements ``core.vault.ports.PodFiles``. The session stays its owner's and is not closed here."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float = 30.0,
        silence_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        page_files: int = PAGE_FILES,
    ) -> None:
        """``timeout_s`` bounds a question to the agent; a file may take as long as it comes without such a silence."""
        self._session = session
        self._timeout_s = timeout_s
        self._page_files = page_files
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=connect_timeout_s + timeout_s,
            sock_connect=connect_timeout_s,
            sock_read=silence_s,
        )

    @asynccontextmanager
    async def from_comfyui(
        self,
        place: PodPlace,
        file: FileName,
        *,
        offset: int = 0,
        etag: str | None = None,
        had: str | None = None,
    ) -> AsyncIterator[FileAnswer]:
        """See the port."""
        query = urlencode(
            {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}, quote_via=quote
        )
        headers = front_door_headers(place.backend.token) | _conditions(offset, etag, had)
        async with self._reading(place.backend.upstream.url(f"/view?{query}"), headers) as answer:
            yield answer

    @asynccontextmanager
    async def from_agent(
        self,
        place: PodPlace,
        file: FileName,
        *,
        offset: int = 0,
        etag: str | None = None,
        had: str | None = None,
    ) -> AsyncIterator[FileAnswer]:
        """See the port."""
        url = _agent_url(place, f"files/output/{quote(file.path, safe='/')}")
        # Always a part, if only the one from 0 on: the agent takes a file that was read whole for safe.
        headers = {**_bearer(place), "Range": "bytes=0-", **_conditions(offset, etag, had)}
        async with self._reading(url, headers) as answer:
            yield answer

    async def unfetched(self, place: PodPlace) -> Sequence[ListedOutput] | None:
        """See the port. A file that changes between two pages may be listed as it was."""
        listed: list[ListedOutput] = []
        after = ""
        for _ in range(MAX_PAGES):
            query = urlencode({"unfetched": 1, "limit": self._page_files, "after": after}, quote_via=quote)
            try:
                body = await bounded_get(
                    self._session,
                    _agent_url(place, f"files/output?{query}"),
                    headers={**_bearer(place), LEASE_HEADER: "1"},
                    timeout_s=self._timeout_s,
                    max_body_bytes=MAX_LIST_BYTES,
                )
                files, following = _page(orjson.loads(body))
            except NoUsableAnswer as failure:
                if str(failure) in {"answered 404", "answered 405"}:
                    return None
                raise PodFilesUnavailable(f"the agent {failure}") from None
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                raise PodFilesUnavailable("the agent's list has an unknown shape") from None
            listed += files
            if following is None or following <= after:
                break
            after = following
        return listed

    async def note_fetched(self, place: PodPlace, outputs: Collection[tuple[str, str]]) -> None:
        """See the port."""
        told = [{"path": path, "etag": etag} for path, etag in outputs]
        for begin in range(0, len(told), NOTED_AT_ONCE):
            try:
                answer = await bounded_answer(
                    self._session,
                    "POST",
                    _agent_url(place, "files/output/fetched"),
                    headers={**_bearer(place), LEASE_HEADER: "1", "Content-Type": "application/json"},
                    timeout_s=self._timeout_s,
                    max_body_bytes=MAX_LIST_BYTES,
                    body=orjson.dumps({"files": told[begin : begin + NOTED_AT_ONCE]}),
                )
            except NoUsableAnswer as failure:
                raise PodFilesUnavailable(f"the agent {failure}") from None
            if answer.status in {404, 405}:
                return  # an agent from before that
            if answer.status != 200:
                raise PodFilesUnavailable(f"the agent answered {answer.status}")

    @asynccontextmanager
    async def _reading(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[FileAnswer]:
        try:
            response = await self._session.get(
                URL(url, encoded=True),
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise PodFilesUnavailable(f"no answer ({type(error).__name__})") from None
        async with response:
            yield _answer_of(response)


def _conditions(offset: int, etag: str | None, had: str | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    if offset and etag is not None:
        # aiohttp, which both servers use, knows If-Range with a time only and passes over one with a tag.
        headers |= {"Range": f"bytes={offset}-", "If-Range": f'"{etag}"', "If-Match": f'"{etag}"'}
    if had is not None:
        headers["If-None-Match"] = f'"{had}"'
    return headers


def _answer_of(response: aiohttp.ClientResponse) -> FileAnswer:
    status = response.status
    etag = usable_etag(response.headers.get("ETag"))
    if status == 200 and "Content-Encoding" not in response.headers:
        return FileAnswer(Found.CONTENT, _chunks(response), 0, response.content_length, etag)
    if status == 206 and (found := _RANGE.fullmatch(response.headers.get("Content-Range", ""))):
        total = None if found[2] == "*" else int(found[2])
        return FileAnswer(Found.CONTENT, _chunks(response), int(found[1]), total, etag)
    if status == 304:
        return FileAnswer(Found.SAME, _nothing(), etag=etag)
    if status in {412, 416}:
        return FileAnswer(Found.CHANGED, _nothing())
    if status in _NOT_FOUND:
        return FileAnswer(_NOT_FOUND[status], _nothing())
    raise PodFilesUnavailable(f"answered {status}")


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Pieces large enough to be worth a thread each."""
    gathered = bytearray()
    try:
        async for piece in response.content.iter_any():
            gathered += piece
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except (aiohttp.ClientError, TimeoutError) as error:
        if gathered:
            yield bytes(gathered)
        raise PodFilesUnavailable(f"broke off ({type(error).__name__})") from None
    if gathered:
        yield bytes(gathered)


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece


def _page(told: Any) -> tuple[list[ListedOutput], str | None]:
    files = [
        ListedOutput(str(one["path"]), int(one["size_bytes"]), etag)
        for one in told["files"]
        if (etag := usable_etag(f'"{one["etag"]}"')) is not None
    ]
    following = told["next"]
    if following is not None and not isinstance(following, str):
        raise ValueError("next is a path or null")
    return files, following


def _agent_url(place: PodPlace, path: str) -> str:
    """Beside the telemetry."""
    return urljoin(place.agent_url, path)


def _bearer(place: PodPlace) -> dict[str, str]:
    return {"Authorization": f"Bearer {place.agent_token}"}
