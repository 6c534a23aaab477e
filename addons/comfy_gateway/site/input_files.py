"""What is shown of input files: ``/object_info``, the lists of folders, and files that only the gateway still has."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from comfy_gateway.core import loose_json, site_contract
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.files.view_query import file_of_query
from comfy_gateway.core.inputs.ports import InputStore
from comfy_gateway.core.interface.more_nodes import with_more
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.refusals import UNKNOWN_PAGE, UPSTREAM_UNREACHABLE
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.inputs.inputs import Inputs
from comfy_gateway.service.inputs.lists import InputLists
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.site.asker import Asker, told, written
from comfy_gateway.site.file_headers import content_type, disposition
from comfy_gateway.site.pictures import Pictures
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.servers import Servers, off_the_loop, refusal_of

logger = logging.getLogger(__name__)


class InputFiles:
    """The three paths. ``servers`` must be patient: ``/object_info`` may take long to be built."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        lists: InputLists,
        store: InputStore,
        routes: Routes,
        servers: Servers,
        richer: Callable[[UserId | None], Backend | None] = lambda _user: None,
    ) -> None:
        """``richer(user)`` is the duty server where prompts stay that the user's pod cannot run, if there are any."""
        self._inputs = inputs
        self._lists = lists
        self._store = store
        self._routes = routes
        self._servers = servers
        self._pictures = Pictures()
        self._richer = richer

    def routes(self) -> list[web.RouteDef]:
        """See ``site.app.Part``."""
        info = site_contract.OBJECT_INFO_PATH
        return [
            web.get(info, self.object_info),
            web.get(info + "/{node_class}", self.object_info),
            web.get(site_contract.FILE_LISTS_PATH + "{folder:input|output|temp}", self.names),
            web.get(site_contract.INPUT_PATH, self.view),
        ]

    async def object_info(self, request: web.Request) -> web.StreamResponse:
        """The current server's answer with the user's files in its lists, and what else runs on duty."""
        asker = Asker.of(request)
        backend = self._routes.current(asker.user)
        rest = request.raw_path.removeprefix(site_contract.OBJECT_INFO_PATH)
        said = await self._servers.ask(backend, "/object_info" + rest)
        if not said.status:
            return answer(refusal_of([said]))
        source = {site_contract.SOURCE: str(backend.source)}
        info = await off_the_loop(len(said.body), lambda: _object(said.body)) if said.is_ok else None
        if info is None:
            return web.Response(
                status=said.status, body=said.body, content_type=said.content_type, headers=source
            )
        is_whole = "node_class" not in request.match_info
        merged = await self._lists.merge(asker.user, asker.peer, backend, info, is_whole=is_whole)
        more, size_bytes = await self._more(asker, rest)
        body = await off_the_loop(
            len(said.body) + size_bytes, lambda: written(with_more(merged, more) if more else merged)
        )
        return web.Response(body=body, content_type="application/json", headers=source)

    async def _more(self, asker: Asker, rest: str) -> tuple[dict[str, Any], int]:
        """The same of the duty server that runs what the user's pod cannot, and its size; empty where there is none."""
        richer = self._richer(asker.user)
        if richer is None:
            return {}, 0
        said = await self._servers.ask(richer, "/object_info" + rest)
        info = await off_the_loop(len(said.body), lambda: _object(said.body)) if said.is_ok else None
        if info is None:
            return {}, 0
        if self._inputs.hides_names(richer):
            info = await self._lists.merge(asker.user, asker.peer, richer, info, is_whole=False)
        return info, len(said.body)

    async def names(self, request: web.Request) -> web.StreamResponse:
        """``/internal/files/{folder}`` over all servers of the user."""
        asker = Asker.of(request)
        backend = self._routes.current(asker.user)
        try:
            return told(
                await self._lists.names(asker.user, asker.peer, backend, request.match_info["folder"])
            )
        except BackendUnavailable as error:
            logger.warning("files are not listed: %s", error)
            return answer(UPSTREAM_UNREACHABLE)

    async def view(self, request: web.Request) -> web.StreamResponse:
        """An upload that is on no server of its owner at this moment, with Range and ETag."""
        file = file_of_query(request.query_string)
        owner_key = request.headers.get(site_contract.OWNER)
        content = None if file is None else self._inputs.kept(owner_key, file)
        if file is None or content is None:
            return answer(UNKNOWN_PAGE)
        path = self._store.path(content.sha256)
        try:
            rendered = await self._pictures.rendered(lambda: path.open("rb"), file.filename, request.query)
        except FileNotFoundError:
            return answer(UNKNOWN_PAGE)
        if rendered is not None:
            return rendered
        if not await asyncio.to_thread(path.is_file):
            return answer(UNKNOWN_PAGE)
        headers = {
            "Content-Type": content_type(file.filename),
            "Content-Disposition": disposition(file.filename),
            "Cache-Control": "no-cache",
        }
        return web.FileResponse(path, headers=headers)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = loose_json.read(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
