"""Reads and fills the folders of ComfyUI servers, over HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_get
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import FileBody, FileFacts, FormAnswer, FormFile, Unchanged
from comfy_gateway.core.inputs.refs import FOLDERS
from comfy_gateway.core.requests.upstream import Backend, front_door_headers

CONNECT_S: Final = 10.0
SILENCE_S: Final = 60.0
"""Without a byte from the server."""
LEAST_BYTES_PER_S: Final = 128 * 1024
"""An upload that is slower is given up, for a server that stopped reading would hold it for ever."""
MAX_NAMES_BYTES: Final = 64 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 1024 * 1024

_CHUNK_BYTES: Final = 256 * 1024
_MISSING: Final = frozenset({400, 403, 404})
"""``/view`` says 400 to a name and 403 to a folder that it will never open."""
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9 ._()\[\]-]+")
_ETAG: Final = re.compile(r'(?:W/)?"[!#-~]{1,200}"')
_ANNOTATIONS: Final = tuple(f"[{folder}]" for folder in FOLDERS)


class HttpInputServer:
    """Implements ``core.inputs.ports.InputServer``. The session stays its owner's and is not closed here."""

    def __init__(
        self, session: aiohttp.ClientSession, *, timeout_s: float = 10.0, silence_s: float = SILENCE_S
    ) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._silence_s = silence_s

    async def look(self, backend: Backend, file: FileName) -> FileFacts | None:
        """See the port. By HEAD, which ComfyUI answers wherever it answers GET."""
        if not _is_readable(file):
            return None
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with self._session.head(
                _view(backend, file), headers=_reading(backend), timeout=timeout, allow_redirects=False
            ) as response:
                if response.status in _MISSING:
                    return None
                if response.status != 200:
                    raise BackendUnavailable(f"view: answered {response.status}")
                return FileFacts(response.content_length, _etag_of(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BackendUnavailable(f"view: no answer ({type(error).__name__})") from None

    @asynccontextmanager
    async def read(
        self, backend: Backend, file: FileName, *, etag: str = ""
    ) -> AsyncIterator[FileBody | Unchanged | None]:
        """See the port."""
        if not _is_readable(file):
            yield None
            return
        headers = _reading(backend) | ({"If-None-Match": etag} if etag else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s)
        try:
            response = await self._session.get(
                _view(backend, file), headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BackendUnavailable(f"view: no answer ({type(error).__name__})") from None
        async with response:
            if response.status == 304 and etag:
                yield Unchanged()
            elif response.status in _MISSING:
                yield None
            elif response.status == 200 and "Content-Encoding" not in response.headers:
                yield FileBody(_chunks(response), response.content_length, _etag_of(response))
            else:
                raise BackendUnavailable(f"view: answered {response.status}")

    async def names(self, backend: Backend, folder: str) -> Sequence[str]:
        """See the port."""
        try:
            body = await bounded_get(
                self._session,
                backend.upstream.url(f"/internal/files/{folder}"),
                headers=front_door_headers(backend.token),
                timeout_s=self._timeout_s,
                max_body_bytes=MAX_NAMES_BYTES,
            )
            told = orjson.loads(body)
        except NoUsableAnswer as failure:
            raise BackendUnavailable(f"files: {failure}") from None
        except orjson.JSONDecodeError:
            raise BackendUnavailable("files: no JSON") from None
        if not isinstance(told, list):
            raise BackendUnavailable("files: unknown shape")
        return [name for name in told if isinstance(name, str)]

    async def post_form(
        self,
        backend: Backend,
        kind: str,
        fields: Sequence[tuple[str, str]],
        file: FormFile | None,
        headers: Mapping[str, str] | None = None,
    ) -> FormAnswer:
        """See the port."""
        opened = None if file is None else await asyncio.to_thread(file.path.open, "rb")
        size_bytes = 0 if file is None else file.size_bytes
        timeout = aiohttp.ClientTimeout(
            total=2 * self._silence_s + size_bytes / LEAST_BYTES_PER_S, sock_connect=CONNECT_S
        )
        form = aiohttp.MultipartWriter("form-data")
        try:
            if file is not None and opened is not None:
                part = aiohttp.payload.BufferedReaderPayload(opened, content_type=file.content_type)
                part.headers["Content-Disposition"] = _disposition("image", file.filename)
                form.append_payload(part)
            for name, value in fields:
                if _PLAIN_NAME.fullmatch(name):
                    text = aiohttp.payload.StringPayload(value)
                    text.headers["Content-Disposition"] = _disposition(name)
                    form.append_payload(text)
            async with self._session.post(
                backend.upstream.url(f"/upload/{kind}"),
                data=form,
                headers={**(headers or {}), **front_door_headers(backend.token)},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                body = await response.content.read(MAX_ANSWER_BYTES)
                return FormAnswer(response.status, body, response.content_type)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BackendUnavailable(f"upload: no answer ({type(error).__name__})") from None
        finally:
            if opened is not None:
                opened.close()


def _view(backend: Backend, file: FileName) -> URL:
    query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
    return URL(backend.upstream.url(f"/view?{urlencode(query, quote_via=quote)}"), encoded=True)


def _reading(backend: Backend) -> dict[str, str]:
    # A server may have a compressed neighbour of the file (x.png.gz).
    return {"Accept-Encoding": "identity", **front_door_headers(backend.token)}


def _is_readable(file: FileName) -> bool:
    """``/view`` reads annotations within a name, and refuses two dots anywhere in it."""
    return ".." not in file.filename and not file.filename.endswith(_ANNOTATIONS)


def _etag_of(response: aiohttp.ClientResponse) -> str:
    etag = response.headers.get("ETag", "")
    return etag if _ETAG.fullmatch(etag) else ""


def _disposition(name: str, filename: str | None = None) -> str:
    """As aiohttp, ComfyUI's server, reads it: in quotes it would take off slashes and stumble over semicolons."""
    if filename is None:
        return f'form-data; name="{name}"'
    if _PLAIN_NAME.fullmatch(filename):
        return f'form-data; name="{name}"; filename="{filename}"'
    return f"form-data; name=\"{name}\"; filename*=UTF-8''{quote(filename, safe='')}"


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise BackendUnavailable(f"view: broke off ({type(error).__name__})") from None
