"""``/view`` of a file of a pod of which the vault has something: from the pod, or from the vault where the pod fails.

A pod that has died keeps its route until the gateway is sure, and its pictures are safe. The pod is asked first, for a
node may have written the file again under the same name.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from comfy_gateway.core import site_contract
from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.view_query import file_of_query, naming
from comfy_gateway.core.files.whereabouts import OnBackend
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.refusals import UPSTREAM_LATE, UPSTREAM_UNREACHABLE, Refusal
from comfy_gateway.core.requests.upstream import Source, front_door_headers
from comfy_gateway.service.files.files import Files
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.streaming import stream
from comfy_gateway.site.vault_view import Kept, VaultView

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0
"""How long the first byte of a pod is waited for where the vault has the file too."""
MUTE_S: Final = 10.0
"""So long a pod that let its time pass is not asked again for what the vault has: a page shows dozens of pictures."""
CONNECT_S: Final = 10.0
FINE: Final = frozenset({200, 206, 304, 416})
"""Answers to a request for a file that is there. Proxies before a pod that is gone say 404 as well as 502."""
MUTE_STATUS: Final = 502
_ASKED_WITH: Final = (
    "Accept",
    "Accept-Encoding",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Range",
)
_OF_ONE_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "server",
        "date",
        "set-cookie",
    }
)
_BROKEN: Final = (aiohttp.ClientError, OSError)


class PodView:
    """``whole_s``: how long the first byte is waited for where nobody else has the file."""

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        files: Files,
        vault: Kept,
        view: VaultView,
        nudge: Callable[[UserId], None],
        clock: Clock,
        whole_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._http = http
        self._files = files
        self._vault = vault
        self._view = view
        self._nudge = nudge
        self._clock = clock
        self._mute_until_s: dict[str, float] = {}
        self._whole_s = whole_s
        self._patience_s = patience_s

    def routes(self) -> list[web.RouteDef]:
        """See ``site.app.Part``."""
        return [web.get(site_contract.POD_FILE_PATH, self.view)]

    async def view(self, request: web.Request) -> web.StreamResponse:
        """One file."""
        owner_key = request.headers.get(site_contract.OWNER)
        name = file_of_query(request.query_string)
        where = None if name is None else self._files.resolve(owner_key, "", name)
        if name is None or owner_key is None or not isinstance(where, OnBackend):
            return await self._view.view(request)  # its route went away since the hooks looked
        is_kept = await self._is_kept(owner_key, name)
        if is_kept and self._is_mute(where.backend.id):
            return await self._view.view(request)
        said: web.StreamResponse | Refusal | None = None
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience_s if is_kept else self._whole_s):
                    response = await stack.enter_async_context(self._ask(request, where))
                    first = await response.content.readany()
            except TimeoutError:
                said = UPSTREAM_LATE
                self._mute_until_s[where.backend.id] = self._clock.monotonic() + MUTE_S
            except (*_BROKEN, ValueError) as error:
                logger.info("%s does not give a file: %s", where.backend.id, type(error).__name__)
                said = UPSTREAM_UNREACHABLE
            else:
                if response.status in FINE or not (is_kept or 300 <= response.status < 400):
                    self._doubt(owner_key, is_mute=response.status >= MUTE_STATUS)
                    return await _passed_on(request, response, first, where.backend.source)
                said = UPSTREAM_UNREACHABLE
        self._doubt(owner_key, is_mute=True)
        return await self._view.view(request) if is_kept else answer(said)

    def _is_mute(self, backend_id: str) -> bool:
        now_s = self._clock.monotonic()
        self._mute_until_s = {id_: until_s for id_, until_s in self._mute_until_s.items() if until_s > now_s}
        return backend_id in self._mute_until_s

    async def _is_kept(self, owner_key: str, name: FileName) -> bool:
        try:
            return await self._vault.find(owner_key, name) is not None
        except StoreError as error:
            logger.warning("a file of a pod is shown without a look into the vault: %s", error)
            return False

    def _ask(
        self, request: web.Request, where: OnBackend
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = front_door_headers(where.backend.token)
        headers |= {name: request.headers[name] for name in _ASKED_WITH if name in request.headers}
        query = naming(request.query_string, where.file)
        return self._http.request(
            request.method,
            URL(where.backend.upstream.url(f"/view?{query}"), encoded=True),
            headers=headers,
            skip_auto_headers=("Accept", "Accept-Encoding"),
            allow_redirects=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._whole_s),
        )

    def _doubt(self, owner_key: str, *, is_mute: bool) -> None:
        if is_mute:
            self._nudge(UserId.from_key(owner_key))


async def _passed_on(
    request: web.Request, response: aiohttp.ClientResponse, first: bytes, source: Source
) -> web.StreamResponse:
    told = web.StreamResponse(status=response.status, reason=response.reason)
    for name, value in response.headers.items():
        if name.lower() not in _OF_ONE_HOP and not name.lower().startswith(site_contract.PREFIX):
            told.headers.add(name, value)
    told.headers[site_contract.SOURCE] = str(source)
    if request.method == "HEAD" or response.status == 304:
        await told.prepare(request)
        return told
    return await stream(request, told, _chunks(first, response), (*_BROKEN, TimeoutError))


async def _chunks(first: bytes, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    yield first
    async for chunk in response.content.iter_any():
        yield chunk
