"""Points a flow at a server: destination, Host, Origin, path, and the headers that belong to one hop only."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final
from urllib.parse import urlsplit

from mitmproxy import http

from comfy_gateway.core import site_contract
from comfy_gateway.core.people.cookie import without_identity_cookie
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream, front_door_headers
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import Edge
from comfy_gateway.hooks.header_fields import names_of, rewrite
from comfy_gateway.hooks.secret_headers import hidden, hide

GATEWAY_PREFIX: Final = "x-comfy-gateway-"
"""Between gateway and pod; a client that sends such a header is not listened to."""
_NOT_OF_CLIENTS: Final = (site_contract.PREFIX, GATEWAY_PREFIX)
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
    _note_close(flow)
    put = {"Origin": backend.upstream.origin} if flow.metadata.get(edge.OURS) else {}
    _aim(request, backend.upstream, put, front_door_headers(backend.token))
    request.path = backend.upstream.prefix + request.path
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
    _note_close(flow)
    put = {site_contract.PEER: peer_of(flow)}
    if request.headers.get("upgrade", "").lower() == "websocket":
        put |= {"Connection": "Upgrade", "Upgrade": "websocket"}
    if (user := flow.metadata.get(edge.USER)) is not None:
        put[site_contract.USER] = user
    if flow.metadata.get(edge.ROLE) == Role.OPERATOR:
        put[site_contract.ROLE] = str(Role.OPERATOR)
    if flow.metadata.get(edge.PROVEN):
        put[site_contract.PROVEN] = "1"
    if (session_id := flow.metadata.get(edge.SESSION)) is not None:
        put[site_contract.SESSION] = session_id
    if flow.metadata.get(edge.HTTPS):
        put[site_contract.HTTPS] = "1"
    secrets = {site_contract.KEY: gateway.site_key}
    _aim(request, gateway.site, {**put, **(headers or {})}, secrets, drop={"origin"})
    if path is not None:
        request.path = path
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
    told = {
        "X-Forwarded-For": peer_of(flow),
        "X-Forwarded-Proto": "https" if flow.metadata.get(edge.HTTPS, is_https) else "http",
        "X-Forwarded-Host": flow.metadata.get(edge.HOST) or flow.request.host_header or "",
    }
    rewrite(flow.request.headers, put=told)


def clean_response(flow: http.HTTPFlow) -> None:
    """Remove what belongs to the hop behind us.

    ``Connection: close`` stays, for mitmproxy frames by it, and is added where the client asked for it.
    """
    response = flow.response
    assert response is not None
    headers = response.headers
    if response.status_code == 101:
        return
    closes = _closes(headers) or flow.metadata.get(edge.CLOSES)
    put = {"Connection": "close"} if closes else {}
    rewrite(headers, drop=_named_in_connection(headers) | HOP_BY_HOP, put=put)
    location = headers.get("location")
    own = flow.metadata.get(edge.LOCATION)
    if location is not None and own:
        headers["Location"] = _as_clients_see(location, own)


def _note_close(flow: http.HTTPFlow) -> None:
    """A client that wants its connection closed says so in a header that the server behind us does not get."""
    if _closes(flow.request.headers):
        flow.metadata[edge.CLOSES] = True


def _closes(headers: http.Headers) -> bool:
    return "close" in headers.get("connection", "").lower()


def _aim(
    request: http.Request,
    upstream: Upstream,
    put: Mapping[str, str],
    secrets: Mapping[str, str],
    *,
    drop: AbstractSet[str] = frozenset(),
) -> None:
    """Name the destination, and send it no header that is not for it."""
    # mitmproxy's own setters of host and port rewrite Host, each in a pass of its own.
    request.data.scheme = upstream.scheme.encode()
    request.data.host = upstream.host
    request.data.port = upstream.port
    request.data.authority = b""
    headers = request.headers
    unwanted = drop | HOP_BY_HOP | _named_in_connection(headers)
    unwanted |= {name for name in names_of(headers) if name.startswith(_NOT_OF_CLIENTS)}
    if (authorization := headers.get("authorization")) is not None and "authorization" not in unwanted:
        # The second time that a flow is aimed its own header is a blot already.
        secrets = {**secrets, "Authorization": hidden(request).get("Authorization", authorization)}
    put = {"Host": upstream.authority, **put, **hide(request, secrets)}
    if cookies := headers.get_all("cookie"):
        # Several are one list (RFC 6265, 5.4); mitmproxy would join them with commas.
        rest = without_identity_cookie("; ".join(cookies))
        if rest:
            put["Cookie"] = rest
        else:
            unwanted |= {"cookie"}
    rewrite(headers, drop=unwanted, put=put)


def _named_in_connection(headers: http.Headers) -> set[str]:
    listed = headers.get("connection", "")
    if not listed:
        return set()
    return {name.strip().lower() for name in listed.split(",") if name.strip()} - NEVER_OF_ONE_HOP


def _as_clients_see(location: str, own: str) -> str:
    """A redirect to the server itself, with or without its address, as a path of ours; any other as it came."""
    for base in (own, urlsplit(own).path):
        rest = location.removeprefix(base)
        if base and rest != location and rest[:1] in {"", "/", "?", "#"}:
            return "/" + rest.lstrip("/")  # two slashes would name another host
    return location
