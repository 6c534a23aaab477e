"""``/view`` of files whose pod is gone: from the vault."""

from collections.abc import AsyncIterator
from typing import BinaryIO, Final, Protocol

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.errors import StorageUnavailable, StoreError
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.view_query import file_of_query
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.vault.vault import StoredFile
from comfy_gateway.site.file_headers import content_type, disposition
from comfy_gateway.site.pictures import Pictures
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.streaming import stream

NOT_NOW: Final = Refusal(
    503, "vault_unavailable", "The gateway cannot read its kept files just now.", retry_after_s=5
)


class Kept(Protocol):
    """What is asked of the vault here."""

    async def find(self, user_key: str | None, name: FileName) -> StoredFile | None:
        """The content that a shown name means, if it is this user's. Raises StoreUnavailable."""
        ...

    def chunks(self, stored: StoredFile, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The content's bytes. Raises StorageUnavailable and FileNotFoundError."""
        ...

    def open(self, stored: StoredFile) -> BinaryIO:
        """The same, to be read in a thread."""
        ...


class VaultView:
    """Answers with Range, ETag, ``preview=`` and ``channel=``, and 404 for what is not there or somebody else's."""

    def __init__(self, vault: Kept, pictures: Pictures) -> None:
        self._vault = vault
        self._pictures = pictures

    def routes(self) -> list[web.RouteDef]:
        """See ``site.app.Part``."""
        return [web.get(site_contract.VAULT_PATH, self.view)]

    async def view(self, request: web.Request) -> web.StreamResponse:
        """One file."""
        name = file_of_query(request.query_string)
        owner_key = request.headers.get(site_contract.OWNER)
        try:
            stored = None if name is None else await self._vault.find(owner_key, name)
            if stored is None:
                return web.Response(status=404)
            found = stored
            picture = await self._pictures.rendered(
                lambda: self._vault.open(found), found.file.filename, request.query
            )
            return await self._send(request, stored) if picture is None else picture
        except FileNotFoundError:  # retention was quicker
            return web.Response(status=404)
        except (StoreError, StorageUnavailable):
            return answer(NOT_NOW)

    async def _send(self, request: web.Request, stored: StoredFile) -> web.StreamResponse:
        etag = stored.etag or stored.sha256[:32]
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if _is_known(request, etag):
            return web.Response(status=304, headers=headers)
        part = _part(request, etag, stored.size_bytes)
        if part is None:
            headers["Content-Range"] = f"bytes */{stored.size_bytes}"
            return web.Response(status=416, headers=headers)
        start, stop = part
        is_whole = (start, stop) == (0, stored.size_bytes)
        headers["Content-Type"] = content_type(stored.file.filename)
        headers["Content-Disposition"] = disposition(stored.file.filename)
        if not is_whole:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size_bytes}"
        response = web.StreamResponse(status=200 if is_whole else 206, headers=headers)
        response.content_length = stop - start
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        chunks = self._vault.chunks(stored, start, stop)
        return await stream(request, response, chunks, (StorageUnavailable, FileNotFoundError))


def _is_known(request: web.Request, etag: str) -> bool:
    """Whether the client has this content (If-None-Match, weakly compared as RFC 9110 wants)."""
    return any(tag.value in {etag, "*"} for tag in request.if_none_match or ())


def _part(request: web.Request, etag: str, size_bytes: int) -> tuple[int, int] | None:
    """From where to where, or None when nothing of what is asked for is there.

    A range that cannot be read, or that is meant for another content (If-Range), is no range.
    """
    whole = (0, size_bytes)
    condition = request.headers.get("If-Range")
    if "Range" not in request.headers or (condition is not None and condition != f'"{etag}"'):
        return whole
    try:
        asked = request.http_range
    except ValueError:  # several ranges, or nonsense: RFC 9110 allows to answer with everything
        return whole
    start, stop = asked.start, asked.stop
    if start is None:
        return whole
    if start < 0:
        return (max(size_bytes + start, 0), size_bytes) if size_bytes else None
    stop = size_bytes if stop is None else min(stop, size_bytes)
    return (start, stop) if start < stop else None
