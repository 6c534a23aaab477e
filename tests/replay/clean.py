"""Makes a recording fit to be kept: as client and server said it, without secrets and without ComfyUI's files."""

import json
import re
from typing import Any, Final

from mitmproxy import connection, http

from tests.replay import original

STRIPPED: Final = "stripped"
OUR_COOKIE: Final = "comfy_gateway_user"
MOST_BODY_BYTES: Final = 20_000
"""Longer answers say nothing more about routing."""
MOST_FILES: Final = 60
"""Of the hundreds of scripts that a page load asks for, one is like the other."""
TABLE: Final = {"gateway.class": "recorded.class", "gateway.source": "recorded.source"}
"""What the gateway decided while it was recorded, under names that mean nothing to its hooks."""

_SECRET_HEADERS: Final = re.compile(
    r"authorization|proxy-authorization|x-comfy-gateway-.*|x-gateway-site-.*", re.I
)
_SECRET_KEYS: Final = re.compile(r".*(api_key|auth_token|password|secret).*", re.I)
_PATH_OF_A_MACHINE: Final = re.compile(
    r"(?<![\w.:/])/(?:home|root|Users|work|workspace|mnt|media|opt|srv|tmp|usr|var)(?:/[^\s\"'\\,:;]*)?"
)
_INTERFACE: Final = "interface"
_TEXT: Final = re.compile(r"application/json|text/plain", re.I)


def clean(flow: http.HTTPFlow) -> http.HTTPFlow:
    """A flow that ``original`` has noted, as it may be kept. Changes and returns it."""
    _restore(flow)
    for headers in _headers_of(flow):
        _clean_headers(headers)
    request, response = flow.request, flow.response
    request.data.content = _clean_body(request.data.content)
    if "content-length" in request.headers:
        request.headers["Content-Length"] = str(len(request.data.content or b""))
    if response is not None:
        response.data.content = _clean_body(response.data.content) if _is_kept(flow) else b""
    for message in flow.websocket.messages if flow.websocket is not None else ():
        if message.is_text:
            message.content = _clean_body(message.content) or b""
    return flow


def thinned(flows: list[http.HTTPFlow]) -> list[http.HTTPFlow]:
    """Cleaned flows without most of the front end's files; their order stays."""
    files = [flow.id for flow in flows if flow.request.path.startswith("/assets/")]
    step = max(1, -(-len(files) // MOST_FILES))
    left_out = set(files) - set(files[::step])
    return [flow for flow in flows if flow.id not in left_out]


def _restore(flow: http.HTTPFlow) -> None:
    noted = flow.metadata
    request = flow.request
    request.scheme, request.host, request.port = "http", "127.0.0.1", 9
    path, headers = noted[original.REQUEST]
    request.path, request.headers = path, original.headers_of(headers)
    request.data.content = noted.get(original.BODY, b"")
    if flow.response is not None and original.ANSWER in noted:
        flow.response.headers = original.headers_of(noted[original.ANSWER])
    flow.metadata = {name: noted[key] for key, name in TABLE.items() if key in noted}
    flow.comment = ""
    flow.marked = ""
    # Sockets of the machine that recorded it; the client's address alone is part of the story.
    flow.server_conn = connection.Server(address=None)
    flow.client_conn = connection.Client(
        peername=("127.0.0.1", 50_000), sockname=("127.0.0.1", 8000), timestamp_start=0.0
    )


def _headers_of(flow: http.HTTPFlow) -> list[http.Headers]:
    return [flow.request.headers] + ([flow.response.headers] if flow.response is not None else [])


def _clean_headers(headers: http.Headers) -> None:
    kept = []
    for name, value in original.pairs(headers):
        if _SECRET_HEADERS.fullmatch(name):
            continue
        if name.lower() == "cookie":
            value = "; ".join(_without_value(part) for part in value.split(";"))  # noqa: PLW2901
        if name.lower() == "set-cookie":
            first, *attributes = value.split(";")
            value = ";".join([_without_value(first), *attributes])  # noqa: PLW2901
        kept.append([name, _PATH_OF_A_MACHINE.sub(STRIPPED, value) if "path" not in name.lower() else value])
    headers.fields = original.headers_of(kept).fields


def _without_value(cookie: str) -> str:
    return f"{cookie.partition('=')[0].strip()}={STRIPPED}"


def _is_kept(flow: http.HTTPFlow) -> bool:
    """Whether the answer's body is the server's word and not a file of ComfyUI's."""
    assert flow.response is not None
    path = flow.request.path.partition("?")[0].removeprefix("/api")
    if path == "/history":
        return False  # everybody's prompts
    is_file = flow.metadata.get("recorded.class") == _INTERFACE or "template" in path
    return (path == "/extensions" or not is_file) and len(
        flow.response.data.content or b""
    ) <= MOST_BODY_BYTES


def _clean_body(body: bytes | None) -> bytes | None:
    """JSON without the values of secret keys, and text without folders of a machine. Other bytes as they are."""
    if not body:
        return body
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    try:
        document = json.loads(text)
    except ValueError:
        return _PATH_OF_A_MACHINE.sub(STRIPPED, text).encode()
    found = _clean_value(document)
    return body if found == document else json.dumps(found).encode()


def _clean_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: STRIPPED if _SECRET_KEYS.fullmatch(key) and inner else _clean_value(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_clean_value(inner) for inner in value]
    return _PATH_OF_A_MACHINE.sub(STRIPPED, value) if isinstance(value, str) else value
