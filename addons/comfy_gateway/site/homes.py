"""``/userdata``, ``/settings`` and ``/users`` where each user has a home of their own (``core.files.homes``).

Files stream through. Settings are one file of the home, which the gateway reads and writes as ComfyUI does it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import web
from yarl import URL

from comfy_gateway.core import loose_json, site_contract
from comfy_gateway.core.files.homes import SETTINGS, Home, asked
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.requests.refusals import UPSTREAM_UNREACHABLE, Refusal
from comfy_gateway.core.requests.upstream import Backend, front_door_headers
from comfy_gateway.site.asker import Asker, bad_request, told, written
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.servers import Servers, refusal_of

logger = logging.getLogger(__name__)

MAX_SETTINGS_BYTES: Final = 1_000_000
"""Of all of one user's."""
CHUNK_BYTES: Final = 256 * 1024
NO_SUCH_PLACE: Final = Refusal(
    403, "not_in_your_home", "The name leads out of your folder, or holds what no file name can have."
)
NO_NEW_USERS: Final = Refusal(
    403, "users_of_the_gateway", "Users are made by the gateway's sign-in, not on the ComfyUI server."
)
_PASSED_ON: Final = ("Content-Type", "If-None-Match", "If-Modified-Since", "If-Range", "Range")
_TOLD: Final = (
    "Accept-Ranges",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
)


class _TooLarge(Exception):
    """The body of a file has more bytes than are taken."""


class Homes:
    """The paths. ``home_server`` is asked at each request; ``most_bytes`` bounds one file."""

    def __init__(
        self,
        *,
        keys: Keys,
        home_server: Callable[[], Backend],
        servers: Servers,
        http: aiohttp.ClientSession,
        silence_s: float,
        most_bytes: int,
    ) -> None:
        self._keys = keys
        self._home_server = home_server
        self._servers = servers
        self._http = http
        self._silence_s = silence_s
        self._most_bytes = most_bytes
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def routes(self) -> list[web.RouteDef]:
        """See ``site.app.Part``."""
        path = site_contract.HOME_PATH
        return [
            web.get(path + "/userdata", self.list_files),
            web.get(path + "/v2/userdata", self.list_tree),
            web.get(path + "/userdata/{file}", self.file),
            web.delete(path + "/userdata/{file}", self.file),
            web.post(path + "/userdata/{file}", self.file),
            web.post(path + "/userdata/{file}/move/{dest}", self.file),
            web.get(path + "/settings", self.settings),
            web.get(path + "/settings/{id}", self.settings),
            web.post(path + "/settings", self.set_all),
            web.post(path + "/settings/{id}", self.set_one),
            web.get(path + "/users", self.users),
            web.post(path + "/users", self.add_user),
        ]

    # -- files

    async def list_files(self, request: web.Request) -> web.StreamResponse:
        """What is in a folder of the home; ComfyUI names it as seen from there."""
        query = dict(request.query)
        if folder := query.get("dir"):
            path = self._home(request).path_of(folder)
            if path is None:
                return answer(NO_SUCH_PLACE)
            query["dir"] = asked(path)
        return await self._passed_on(request, "/userdata", query)

    async def list_tree(self, request: web.Request) -> web.StreamResponse:
        """All that is in the home or in a folder of it; a home that nothing was put into is empty."""
        home, name = self._home(request), unquote(request.query.get("path", ""))
        path = home.path_of(name)
        if path is None:
            return answer(NO_SUCH_PLACE)
        text = quote(asked(path), safe="") if "%" in path else path
        said = await self._servers.ask(self._home_server(), f"/v2/userdata?path={quote(text, safe='')}")
        if not said.status:
            return answer(refusal_of([said]))
        if said.status == 404 and path == home.folder:
            return told([])
        return _told(home, said.status, said.body)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One file: read, written, removed, or moved to another name of the home."""
        home, address = self._home(request), "/userdata"
        for link, name in (("/", "file"), ("/move/", "dest")):
            if name in request.match_info:
                path = home.path_of(request.match_info[name])
                if path is None or path == home.folder:
                    return answer(NO_SUCH_PLACE)
                address += link + quote(asked(path), safe="")
        return await self._passed_on(request, address, dict(request.query))

    async def _passed_on(self, request: web.Request, path: str, query: dict[str, str]) -> web.StreamResponse:
        """The server's answer to the same request for another path. What it says of a written file names the file as
        the user does.
        """
        backend = self._home_server()
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers |= {"Accept-Encoding": "identity", **front_door_headers(backend.token)}
        parts = [f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query.items()]
        url = backend.upstream.url(path + ("?" + "&".join(parts) if parts else ""))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._silence_s, sock_read=self._silence_s)
        response: web.StreamResponse | None = None
        try:
            async with self._http.request(
                request.method,
                URL(url, encoded=True),
                headers=headers,
                data=self._body(request) if request.body_exists else None,
                timeout=timeout,
                allow_redirects=False,
            ) as said:
                if request.method == "POST":
                    body = await said.content.read(MAX_SETTINGS_BYTES)
                    return _told(self._home(request), said.status, body)
                response = web.StreamResponse(status=said.status)
                for name in _TOLD:
                    if name in said.headers:
                        response.headers[name] = said.headers[name]
                await response.prepare(request)
                async for chunk in said.content.iter_chunked(CHUNK_BYTES):
                    await response.write(chunk)
                await response.write_eof()
                return response
        except _TooLarge:
            return answer(_too_large(self._most_bytes))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, _TooLarge):
                return answer(_too_large(self._most_bytes))
            logger.warning("a file of a home was not passed on: %s", type(error).__name__)
            if response is not None:
                raise  # the client must see that it breaks off
            return answer(UPSTREAM_UNREACHABLE)

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        size_bytes = 0
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > self._most_bytes:
                raise _TooLarge
            yield chunk

    # -- settings and users

    async def settings(self, request: web.Request) -> web.StreamResponse:
        """All settings, or one; null for one that was never set."""
        found = await self._read(self._home(request))
        if isinstance(found, web.StreamResponse):
            return found
        return told(found.get(request.match_info["id"]) if "id" in request.match_info else found)

    async def set_all(self, request: web.Request) -> web.StreamResponse:
        """Settings that are put over those that there are."""
        news = await _json(request)
        if not isinstance(news, dict):
            return news if isinstance(news, web.Response) else answer(bad_request("It must be an object."))
        return await self._change(request, news)

    async def set_one(self, request: web.Request) -> web.StreamResponse:
        """One setting."""
        value = await _json(request)
        if isinstance(value, web.Response):
            return value
        return await self._change(request, {request.match_info["id"]: value})

    async def _change(self, request: web.Request, news: dict[str, Any]) -> web.StreamResponse:
        home = self._home(request)
        # Of two changes at once neither may be lost.
        async with self._turns.setdefault(home.folder, asyncio.Lock()):
            found = await self._read(home)
            if isinstance(found, web.StreamResponse):
                return found
            body = loose_json.write({**found, **news})
            if len(body) > MAX_SETTINGS_BYTES:
                return answer(_too_large(MAX_SETTINGS_BYTES))
            said = await self._servers.ask(self._home_server(), _settings_of(home), method="POST", body=body)
        return web.Response() if said.is_ok else answer(refusal_of([said]))

    async def _read(self, home: Home) -> dict[str, Any] | web.Response:
        said = await self._servers.ask(self._home_server(), _settings_of(home))
        if said.status == 404:
            return {}
        if not said.is_ok:
            return answer(refusal_of([said]))
        try:
            found = loose_json.read(said.body)
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        logger.warning("the settings of a user are broken: they begin anew")  # as ComfyUI does it
        return {}

    async def users(self, _request: web.Request) -> web.StreamResponse:
        """As a server with one user says it: who that is the gateway knows."""
        return told({"storage": "server", "migrated": True})

    async def add_user(self, _request: web.Request) -> web.StreamResponse:
        """Nobody."""
        return answer(NO_NEW_USERS)

    def _home(self, request: web.Request) -> Home:
        return Home.of(self._keys, Asker.of(request).user)


def _settings_of(home: Home) -> str:
    return "/userdata/" + quote(f"{home.folder}/{SETTINGS}", safe="")


def _told(home: Home, status: int, body: bytes) -> web.Response:
    """What a server says of files, by the user's names."""
    try:
        document = loose_json.read(body)
    except ValueError:  # its refusals are plain text or empty, and name no file
        return web.Response(status=status, body=body, content_type="text/plain")
    return web.Response(status=status, body=written(home.shown(document)), content_type="application/json")


async def _json(request: web.Request) -> Any:
    """The value in the body, or an answer that says what is wrong with it."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_SETTINGS_BYTES:
            return answer(_too_large(MAX_SETTINGS_BYTES))
    try:
        return loose_json.read(bytes(body))
    except ValueError:
        return answer(bad_request("The body is no JSON."))


def _too_large(most_bytes: int) -> Refusal:
    return Refusal(413, "body_too_large", f"The body may have at most {most_bytes} bytes.")
