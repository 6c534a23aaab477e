"""``/upload/image`` and ``/upload/mask``: streamed to the disk, then to the server that the user works on.

The file is on the gateway's disk before any server hears of it: its checksum is what the gateway remembers, and a pod
may be gone when the file is needed again.
"""

import logging
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from comfy_gateway.core import site_contract
from comfy_gateway.core.errors import BackendUnavailable, PromptRefused, StorageUnavailable
from comfy_gateway.core.inputs.ports import InputPart, InputStore
from comfy_gateway.core.inputs.refusals import DISK_FULL, NO_FORM, TOO_MANY_PARTS, upload_too_large
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.requests.refusals import UPSTREAM_UNREACHABLE, Refusal
from comfy_gateway.service.inputs.uploads import InputUploads, UploadForm
from comfy_gateway.site.asker import Asker
from comfy_gateway.site.refusals import answer

logger = logging.getLogger(__name__)

MAX_FIELD_BYTES: Final = 1024 * 1024
MAX_PARTS: Final = 100
CHUNK_BYTES: Final = 256 * 1024

_OF_ONE_HOP: Final = frozenset(
    {
        "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_PLAIN_ENCODINGS: Final = frozenset({"binary", "8bit", "7bit"})
"""Of a part. ComfyUI would decode others; no browser and no usual library sends them."""
_CONTENT_TYPE: Final = re.compile(r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60}")


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Uploads:
    """The two paths. ``most_bytes`` bounds the body of one upload."""

    def __init__(self, *, uploads: InputUploads, store: InputStore, most_bytes: int) -> None:
        self._uploads = uploads
        self._store = store
        self._most_bytes = most_bytes

    def routes(self) -> list[web.RouteDef]:
        """See ``site.app.Part``."""
        return [web.post(site_contract.UPLOAD_PATH + "{kind:image|mask}", self.upload)]

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """The server's own answer, or why there is none, in ComfyUI's shape."""
        asker = Asker.of(request)
        try:
            form = await self._read(request)
            taken = await self._uploads.take(
                asker.user,
                asker.peer,
                form,
                _passed_on(request.headers),
                is_operators=asker.role is Role.OPERATOR,
            )
        except _Refused as error:
            return answer(error.refusal)
        except PromptRefused as error:
            return answer(error.refusal)
        except StorageUnavailable as error:
            logger.error("an upload cannot be kept: %s", error)  # noqa: TRY400 - the text says all
            return answer(DISK_FULL)
        except BackendUnavailable as error:
            logger.warning("an upload was not taken: %s", error)
            return answer(UPSTREAM_UNREACHABLE)
        return web.Response(
            status=taken.answer.status,
            body=taken.answer.body,
            content_type=taken.answer.content_type,
            headers={site_contract.SOURCE: str(taken.backend.source)},
        )

    async def _read(self, request: web.Request) -> UploadForm:
        """The whole form, its file in the store. Raises _Refused and StorageUnavailable."""
        self._check_size(request.content_length or 0)
        if request.content_type != "multipart/form-data":
            raise _Refused(NO_FORM)
        async with AsyncExitStack() as stack:
            return await self._read_form(request, stack)

    async def _read_form(self, request: web.Request, stack: AsyncExitStack) -> UploadForm:
        """The file is kept when the form has come to its end: a form that breaks off leaves nothing."""
        fields: list[tuple[str, str]] = []
        filename, content_type = None, "application/octet-stream"
        parts = 0
        kept: InputPart | None = None
        try:
            reader = await request.multipart()
            while (part := await reader.next()) is not None:
                if not isinstance(part, aiohttp.BodyPartReader) or part.name is None:
                    raise _Refused(NO_FORM)
                self._check_size(request.content.total_bytes)
                parts += 1
                if parts > MAX_PARTS:
                    raise _Refused(TOO_MANY_PARTS)
                if part.headers.get("Content-Transfer-Encoding", "binary").lower() not in _PLAIN_ENCODINGS:
                    raise _Refused(NO_FORM)
                if part.filename and part.name == "image" and kept is None:
                    filename = part.filename
                    kept = await stack.enter_async_context(self._store.part(request.content_length))
                    await self._write(part, request, kept)
                    told = part.headers.get("Content-Type", "")
                    content_type = told if _CONTENT_TYPE.fullmatch(told) else content_type
                elif part.filename:
                    await self._pass_over(part, request)
                else:
                    fields.append((part.name, await self._text(part)))
        except (ValueError, RuntimeError, LookupError, AssertionError, HttpProcessingError) as error:
            # What aiohttp raises for a body that is no multipart, and Python for a charset that there is not.
            raise _Refused(NO_FORM) from error
        content = None if kept is None else await kept.finish()
        kind = request.match_info["kind"]
        return UploadForm(kind, tuple(fields), filename, content_type, content)

    async def _write(self, part: aiohttp.BodyPartReader, request: web.Request, kept: InputPart) -> None:
        while chunk := await part.read_chunk(CHUNK_BYTES):
            self._check_size(request.content.total_bytes)
            await kept.write(chunk)

    async def _pass_over(self, part: aiohttp.BodyPartReader, request: web.Request) -> None:
        while await part.read_chunk(CHUNK_BYTES):
            self._check_size(request.content.total_bytes)

    async def _text(self, part: aiohttp.BodyPartReader) -> str:
        text = bytearray()
        while chunk := await part.read_chunk():
            text += chunk
            if len(text) > MAX_FIELD_BYTES:
                raise _Refused(NO_FORM)
        return text.decode(part.get_charset(default="utf-8"))

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._most_bytes:
            raise _Refused(upload_too_large(self._most_bytes))


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """The client's headers that are meant for ComfyUI, or for what stands in front of it."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _OF_ONE_HOP and not name.lower().startswith(site_contract.PREFIX)
    }
