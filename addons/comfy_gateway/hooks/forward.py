"""Points a flow at a server: destination, Host, Origin, path, and the headers that belong to one hop only."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from mitmproxy import http

from comfy_gateway.core import site_contract
from comfy_gateway.core.cookie import without_identity_cookie
from comfy_gateway.core.roles import Role
from comfy_gateway.core.upstream import Backend, Source, Upstream, front_door_headers
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import Edge

GATEWAY_PREFIX: Final = "x-comfy-gateway-"
"""Between gateway and pod; a client that sends such a header is not listened to."""
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "upgrade",
    }
)
"""RFC 9110, 7.6.1, less Transfer-Encoding and Trailer, which mitmproxy itself frames by."""
NEVER_OF_ONE_HOP: Final = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "cookie",
        "origin",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
    }
)
"""A client cannot have these removed by naming them in Connection: routing, framing or the server depends on them."""


def to_backend(flow: http.HTTPFlow, backend: Backend) -> None:
    """Send the flow to a ComfyUI server. Call it before the body is streamed."""
    request = flow.request
    _clean_request(request)
    _aim(request, backend.upstream)
    request.path = backend.upstream.prefix + request.path
    if flow.metadata.get(edge.OURS):
        request.headers["Origin"] = backend.upstream.origin
    for name, value in front_door_headers(backend.token).items():
        request.headers[name] = value
    flow.metadata[edge.SETTLED] = True
    flow.metadata[edge.SOURCE] = str(backend.source)
    flow.metadata[edge.BACKEND] = backend.id
    flow.metadata[edge.LOCATION] = backend.upstream.url("")


def to_site(
    flow: http.HTTPFlow,
    gateway: Edge,
    path: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send the flow to our own site, under another path where one is given. Everything is streamed."""
    request = flow.request
    is_socket = request.headers.get("upgrade", "").lower() == "websocket"
    _clean_request(request)
    if is_socket:
        request.headers["Connection"] = "Upgrade"
        request.headers["Upgrade"] = "websocket"
    request.headers.pop("origin", None)
    _aim(request, gateway.site)
    if path is not None:
        request.path = path
    request.headers[site_contract.KEY] = gateway.site_key
    request.headers[site_contract.PEER] = peer_of(flow)
    if (user := flow.metadata.get(edge.USER)) is not None:
        request.headers[site_contract.USER] = user
    if flow.metadata.get(edge.ROLE) == Role.OPERATOR:
        request.headers[site_contract.ROLE] = str(Role.OPERATOR)
    if flow.metadata.get(edge.PROVEN):
        request.headers[site_contract.PROVEN] = "1"
    if (session_id := flow.metadata.get(edge.SESSION)) is not None:
        request.headers[site_contract.SESSION] = session_id
    if flow.metadata.get(edge.HTTPS):
        request.headers[site_contract.HTTPS] = "1"
    for name, value in (headers or {}).items():
        request.headers[name] = value
    request.stream = True
    flow.metadata[edge.SETTLED] = True
    flow.metadata[edge.SOURCE] = str(Source.GATEWAY)


def peer_of(flow: http.HTTPFlow) -> str:
    """The caller's IP address, also behind a trusted proxy; an empty text where there is none (a replayed flow)."""
    if (address := flow.metadata.get(edge.PEER)) is not None:
        return str(address)
    return flow.client_conn.peername[0] if flow.client_conn.peername else ""


def announce(flow: http.HTTPFlow, *, is_https: bool) -> None:
    """Set X-Forwarded-*, as we or a trusted proxy know it. ``hooks.callers`` has dropped what was sent."""
    headers = flow.request.headers
    headers["X-Forwarded-For"] = peer_of(flow)
    headers["X-Forwarded-Proto"] = "https" if flow.metadata.get(edge.HTTPS, is_https) else "http"
    headers["X-Forwarded-Host"] = flow.metadata.get(edge.HOST) or flow.request.host_header or ""


def clean_response(flow: http.HTTPFlow) -> None:
    """Remove what belongs to the hop behind us. ``Connection: close`` stays, for mitmproxy frames by it."""
    response = flow.response
    assert response is not None
    headers = response.headers
    if response.status_code == 101:
        return
    closes = "close" in headers.get("connection", "").lower()
    for name in _named_in_connection(headers) | HOP_BY_HOP:
        headers.pop(name, None)
    if closes:
        headers["Connection"] = "close"
    location = headers.get("location")
    own = flow.metadata.get(edge.LOCATION)
    if location is not None and own:
        headers["Location"] = _as_clients_see(location, own)


def _aim(request: http.Request, upstream: Upstream) -> None:
    # In this order: the setters of host and port rewrite Host, the scheme's does not.
    request.scheme = upstream.scheme
    request.host = upstream.host
    request.port = upstream.port
    request.headers["Host"] = upstream.authority
    request.authority = ""


def _clean_request(request: http.Request) -> None:
    headers = request.headers
    for name in _named_in_connection(headers) | HOP_BY_HOP:
        headers.pop(name, None)
    for name in {name.lower() for name in headers}:
        if name.startswith((site_contract.PREFIX, GATEWAY_PREFIX)):
            del headers[name]
    if cookies := headers.get_all("cookie"):
        # Several are one list (RFC 6265, 5.4); mitmproxy would join them with commas.
        rest = without_identity_cookie("; ".join(cookies))
        if rest:
            headers["Cookie"] = rest
        else:
            del headers["Cookie"]


def _named_in_connection(headers: http.Headers) -> set[str]:
    listed = headers.get("connection", "")
    return {name.strip().lower() for name in listed.split(",") if name.strip()} - NEVER_OF_ONE_HOP


def _as_clients_see(location: str, own: str) -> str:
    """A redirect to the server itself, with or without its address, as a path of ours; any other as it came."""
    for base in (own, urlsplit(own).path):
        rest = location.removeprefix(base)
        if base and rest != location and rest[:1] in {"", "/", "?", "#"}:
            return "/" + rest.lstrip("/")  # two slashes would name another host
    return location
