"""Points a flow at a server: destination, Host, Origin, path, and the headers that belong to one hop only."""

from collections.abc import Mapping
from typing import Final

from mitmproxy import http

from comfy_gateway.core import site_contract
from comfy_gateway.core.cookie import without_identity_cookie
from comfy_gateway.core.upstream import Backend, Upstream, front_door_headers
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
    for name, value in (headers or {}).items():
        request.headers[name] = value
    request.stream = True
    flow.metadata[edge.SETTLED] = True
    flow.metadata[edge.SOURCE] = "gateway"


def peer_of(flow: http.HTTPFlow) -> str:
    """The client's IP address, or an empty text where there is none (a replayed flow)."""
    return flow.client_conn.peername[0] if flow.client_conn.peername else ""


def announce(flow: http.HTTPFlow, *, is_https: bool) -> None:
    """Set X-Forwarded-*. What a client sent under these names is its own word and is dropped."""
    headers = flow.request.headers
    headers["X-Forwarded-For"] = peer_of(flow)
    headers["X-Forwarded-Proto"] = "https" if is_https else "http"
    headers["X-Forwarded-Host"] = flow.request.host_header or ""


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
    if location is not None and own and location.startswith(own):
        headers["Location"] = location.removeprefix(own) or "/"


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
    if (cookies := headers.get("cookie")) is not None:
        rest = without_identity_cookie(cookies)
        if rest:
            headers["Cookie"] = rest
        else:
            del headers["Cookie"]


def _named_in_connection(headers: http.Headers) -> set[str]:
    listed = headers.get("connection", "")
    # A client cannot use the Connection header to have a header removed that routing or framing depends on.
    kept = {"host", "content-length", "transfer-encoding", "cookie", "origin"}
    return {name.strip().lower() for name in listed.split(",") if name.strip()} - kept
