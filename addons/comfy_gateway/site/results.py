"""Results for those who say no name: the prompt's own id is the key.

The usual script asks ``/history/{id}`` and then ``/view?filename=…`` on new connections, without an id, cookie or
header. The history is answered by the server that has the prompt, and the files that it names are remembered for
that peer, so that the view which follows goes to the same server.
"""

from collections.abc import Iterator

import aiohttp
import orjson
from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.refusals import UPSTREAM_LATE, UPSTREAM_UNREACHABLE
from comfy_gateway.core.upstream import front_door_headers
from comfy_gateway.core.users import UserId
from comfy_gateway.service.ledger import Ledger
from comfy_gateway.service.routes import Routes
from comfy_gateway.service.told_files import FileKey, ToldFiles, file_key
from comfy_gateway.site.refusals import answer


class Results:
    """``/history/{id}`` of a prompt that we know, asked by nobody in particular."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        routes: Routes,
        told: ToldFiles,
        http: aiohttp.ClientSession,
        timeout_s: float,
    ) -> None:
        self._ledger = ledger
        self._routes = routes
        self._told = told
        self._http = http
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    def routes(self) -> list[web.RouteDef]:
        """Where the hooks send those who ask for a known prompt."""
        return [web.get(site_contract.HISTORY_PATH + "{prompt_id}", self.history)]

    async def history(self, request: web.Request) -> web.StreamResponse:
        """The server's own answer, unchanged."""
        prompt_id = request.match_info["prompt_id"]
        record = self._ledger.find(prompt_id)
        user = None if record is None or record.user_key is None else UserId.from_key(record.user_key)
        backend = None if record is None else self._routes.by_id(user, record.backend_id)
        backend = backend or self._routes.duty(None)
        url = backend.upstream.url("/history/" + request.raw_path.partition("?")[0].rpartition("/")[2])
        try:
            async with self._http.get(
                url, headers=front_door_headers(backend.token), timeout=self._timeout, allow_redirects=False
            ) as response:
                body = await response.read()
                status, content_type = response.status, response.content_type
        except TimeoutError:
            return answer(UPSTREAM_LATE)
        except aiohttp.ClientError:
            return answer(UPSTREAM_UNREACHABLE)
        if status == 200 and record is not None:
            peer = request.headers.get(site_contract.PEER, "")
            for file in _files_of(body, prompt_id):
                self._told.note(peer, file, backend.id, record.user_key)
        return web.Response(status=status, body=body, content_type=content_type)


def _files_of(body: bytes, prompt_id: str) -> Iterator[FileKey]:
    """The files in ``{id: {"outputs": {node: {"images": [{filename, subfolder, type}, …], …}}}}``."""
    try:
        outputs = orjson.loads(body)[prompt_id]["outputs"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return
    for output in outputs.values() if isinstance(outputs, dict) else ():
        for files in output.values() if isinstance(output, dict) else ():
            for file in files if isinstance(files, list) else ():
                if isinstance(file, dict) and isinstance(file.get("filename"), str):
                    yield file_key(file)
