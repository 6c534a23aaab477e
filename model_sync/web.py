"""Files over HTTP(S), by Range.

Redirects are followed here and not by aiohttp, because each hop may see its own token or none at all.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

import aiohttp
from yarl import URL

from model_sync import addresses
from model_sync.errors import Doubtful, Passing, Useless
from model_sync.sources import Answer
from model_sync.tokens import Tokens

MAX_REDIRECTS = 10
# Enough that the loop is not woken for every packet, small against the memory that we promise.
BLOCK_BYTES = 256 << 10
CONNECT_S = 20
DESCRIPTION_BYTES = 8 << 20

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}


class Web:
    """Asks within one session. `running` makes one."""

    def __init__(
        self, session: aiohttp.ClientSession, tokens: Tokens, *, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._session = session
        self._tokens = tokens
        self._block_bytes = min(block_bytes, BLOCK_BYTES)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        tokens: Tokens,
        *,
        stall_s: float,
        block_bytes: int = BLOCK_BYTES,
        connector: aiohttp.BaseConnector | None = None,
    ) -> AsyncIterator[Self]:
        """`stall_s`: how long a server may say nothing. `connector` is used and closed."""
        async with aiohttp.ClientSession(
            connector=connector or aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=stall_s),
            # Proxies of HTTPS_PROXY and their like.
            trust_env=True,
            # A cookie is a token too.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=BLOCK_BYTES,
            headers={"User-Agent": "model_sync/1", "Accept-Encoding": "identity"},
        ) as session:
            yield cls(session, tokens, block_bytes=block_bytes)

    @asynccontextmanager
    async def open(
        self, url: URL, *, offset: int, only_if: str | None, page: bool = False
    ) -> AsyncIterator[Answer]:
        try:
            response = await self._ask(url, offset, only_if)
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise Useless(f"{addresses.shown(url)}: {type(error).__name__}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Passing(f"{addresses.shown(url)}: {type(error).__name__}") from error
        try:
            yield self._judged(response, url, offset, page=page)
        finally:
            # Not `release`: the rest of a body may be gigabytes.
            response.close()

    async def json(self, url: URL) -> object:
        """Raises Passing or Useless."""
        async with self.open(url, offset=0, only_if=None) as answer, aclosing(answer.blocks) as blocks:
            body = bytearray()
            async for block in blocks:
                body += block
                if len(body) > DESCRIPTION_BYTES:
                    raise Useless(f"{addresses.shown(url)}: more than a description")
        try:
            return json.loads(body)
        except ValueError as error:
            raise Useless(f"{addresses.shown(url)}: no JSON") from error

    async def _ask(self, url: URL, offset: int, only_if: str | None) -> aiohttp.ClientResponse:
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            headers = self._tokens.headers_for(at)
            if offset:
                headers["Range"] = f"bytes={offset}-"
                if only_if:
                    headers["If-Range"] = only_if
            response = await self._session.get(at, headers=headers, allow_redirects=False)
            if response.status not in {301, 302, 303, 307, 308}:
                return response
            location = response.headers.get("Location", "")
            response.close()
            try:
                ahead = addresses.read(str(at.join(URL(location, encoded=True))))
            except ValueError as error:
                raise Useless(f"{addresses.shown(url)}: redirects to no address") from error
            if ahead.scheme not in addresses.WEB or (at.scheme == "https" and ahead.scheme != "https"):
                raise Useless(f"{addresses.shown(url)}: redirects from {at.scheme} to {ahead.scheme}")
            at = ahead
        raise Useless(f"{addresses.shown(url)}: more than {MAX_REDIRECTS} redirects")

    def _judged(self, response: aiohttp.ClientResponse, url: URL, offset: int, *, page: bool) -> Answer:
        place = addresses.shown(url)
        status = response.status
        if status in _PASSING_STATUS:
            raise Passing(
                f"{place}: {status}", retry_after_s=_retry_after_s(response.headers.get("Retry-After"))
            )
        if status == 416:
            raise Doubtful(f"{place}: 416, nothing behind byte {offset}")
        if status not in {200, 206}:
            raise Useless(f"{place}: {status}{self._hint(url, status)}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Useless(f"{place}: sends the file in another encoding")
        if response.content_type == "text/html" and not page:
            raise Useless(f"{place}: a web page in place of the file{self._hint(url, status)}")
        validator = _validator(response)
        disposition = response.content_disposition
        filename = disposition.filename if disposition else None
        start, total = 0, response.content_length
        if status == 206:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if found is None:
                raise Doubtful(f"{place}: 206 without a usable Content-Range")
            start = int(found.group(1))
            total = None if found.group(3) == "*" else int(found.group(3))
        return Answer(start, total, validator, self._blocks(response, place), filename)

    async def _blocks(self, response: aiohttp.ClientResponse, place: str) -> AsyncGenerator[bytes]:
        try:
            async for block in response.content.iter_chunked(self._block_bytes):
                yield block
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Passing(f"{place}: {type(error).__name__}") from error

    def _hint(self, url: URL, status: int) -> str:
        name = self._tokens.name_for(url)
        if name is None or status in {404, 410}:
            return ""
        if name in self._tokens.by_name:
            return f" (does the account of {name} have access, and has it accepted the model's licence?)"
        return f" (needs {name}?)"


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """A strong ETag, else the date of change. RFC 9110 takes no weak ETag in If-Range."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def _retry_after_s(text: str | None) -> float | None:
    """Seconds, from either form of the header. None where it is missing or senseless."""
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
