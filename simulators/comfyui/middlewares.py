"""What happens to every request: noted, put through the mood, the loopback rule and the cache headers."""

import asyncio
import ipaddress
import re
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from simulators.comfyui.mood import Mood
from simulators.comfyui.sockets import MOST_BODY_BYTES

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
RUBBISH = {"status": "ok", "queue": None}
LIED_ABOUT = re.compile(r"/(queue|history|object_info|prompt)(/[^/]*)?$")


@dataclass
class SeenRequest:
    """One request as it came: `path` with query and percent-encoding, repeated headers joined by a comma.
    `body_bytes` counts what arrived by the time the answer was made."""

    method: str
    path: str
    headers: dict[str, str]
    body_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def is_admin(request: web.Request) -> bool:
    """Whether the request is for the simulator itself, which always answers."""
    return (request.match_info.route.name or "").startswith("sim.")


def noting(seen: deque[SeenRequest], connections: set[asyncio.BaseTransport]) -> Middleware:
    """Keeps what came in `seen`, and the connections of requests that are not yet answered in `connections`."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_admin(request):
            return await handler(request)
        if request.client_max_size != MOST_BODY_BYTES:  # mounted below an application with another limit
            request = request.clone(client_max_size=MOST_BODY_BYTES)
        names = dict.fromkeys(request.headers)
        noted = SeenRequest(
            request.method,
            request.raw_path,
            {name: ", ".join(request.headers.getall(name)) for name in names},
        )
        seen.append(noted)
        transport = request.transport
        if transport is not None:
            connections.add(transport)
        try:
            return await handler(request)
        finally:
            noted.body_bytes = request.content.total_bytes
            if transport is not None:
                connections.discard(transport)

    return note


def suffering(mood: Mood) -> Middleware:
    @web.middleware
    async def suffer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_admin(request):
            return await handler(request)
        if not _is_closed(mood):
            await mood.until_heard()
            if mood.delay_s:
                await asyncio.sleep(mood.delay_s)
        if _is_closed(mood):  # perhaps only since it came
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
        if mood.dead:
            return web.Response(
                status=502, text="<html><title>502 Bad Gateway</title></html>", content_type="text/html"
            )
        response = await handler(request)
        if mood.lying and request.method == "GET" and LIED_ABOUT.search(request.path):
            return web.json_response(RUBBISH)
        return response

    return suffer


def _is_closed(mood: Mood) -> bool:
    return mood.dead and mood.dead_by == "close"


@web.middleware
async def cache_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    name = request.path.rsplit("/", 1)[-1]
    if name.endswith((".js", ".css")) or (name.startswith("index") and name.endswith(".json")):
        response.headers.setdefault("Cache-Control", "no-cache")
    elif name.lower().endswith(IMAGE_SUFFIXES) and response.status in (
        200,
        201,
        202,
        203,
        204,
        205,
        206,
        301,
        308,
    ):
        response.headers.setdefault("Cache-Control", "public, max-age=86400")
    return response


@web.middleware
async def loopback_origin_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """403 when Host is a loopback name and Origin another host or port; ports count where both have one."""
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if host is not None and origin is not None and _is_foreign(host.lower(), origin.lower()):
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


def _is_foreign(host: str, origin: str) -> bool:
    ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
    if not _is_loopback(ours.hostname):
        return False
    our_name = ours.hostname if theirs.port is None else host
    their_name = theirs.hostname if ours.port is None else theirs.netloc
    return bool(our_name and their_name and our_name != their_name)


def _is_loopback(hostname: str | None) -> bool:
    """ComfyUI asks the resolver for names; here only those that are loopback by definition count."""
    if hostname is None:
        return False
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost" or hostname.endswith(".localhost")
