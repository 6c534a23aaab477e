"""Gives browsers the cookies of sign-in, and keeps cookies and tokens out of files of flows.

Our own secrets in requests never are in a flow (``secret_headers``). mitmproxy writes what a flow holds at its end. By
then the head of a streamed answer is with the client and the request is with the server, so that what is secret in them
can be blotted out: a file of flows, and mitmweb, show that it was there. An answer that does not stream is sent only
after that; such a one never carries a session.
"""

import re
from typing import Final

from mitmproxy import http

from comfy_gateway.core import site_contract
from comfy_gateway.core.people.session_cookie import NAMES, SignedIn
from comfy_gateway.core.requests.upstream import POD_TOKEN_HEADER
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import Door
from comfy_gateway.hooks.fail_closed import fail_closed
from comfy_gateway.hooks.secret_headers import BLOT, SecretHeaders

_SECRET_IN_REQUESTS: Final = (site_contract.KEY, POD_TOKEN_HEADER, "authorization", "proxy-authorization")
_SECRET_IN_QUERIES: Final = re.compile(
    r"(?<=[?&])((?:access_|auth_|id_)?token|api_?key|password|secret)=[^&#]+", re.IGNORECASE
)


class RedactHook:
    """Stands behind the router, which says what streams."""

    name = "gateway-redact"

    def __init__(self, door: Door) -> None:
        self._door = door
        self._secrets = SecretHeaders()
        self._under_way: dict[str, http.HTTPFlow] = {}

    def load(self, _loader: object) -> None:
        """mitmproxy begins."""
        self._secrets.install()

    def done(self) -> None:
        """mitmproxy ends, and writes what is under way as it is."""
        self._secrets.uninstall()
        for flow in self._under_way.values():
            _blot_request(flow)
        self._under_way.clear()

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """It begins."""
        self._under_way[flow.id] = flow

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The answer is about to be sent."""
        if edge.is_recorded(flow):
            return
        _blot_request(flow)
        assert flow.response is not None
        headers = flow.response.headers
        if edge.BACKEND in flow.metadata:
            # No server behind us, and no custom node in it, says who somebody is.
            cookies = headers.get_all("set-cookie")
            if kept := [cookie for cookie in cookies if not _is_session(cookie)]:
                headers.set_all("set-cookie", kept)
            else:
                headers.pop("set-cookie", None)
        self._remember(flow, flow.response)
        if any(_is_session(cookie) for cookie in headers.get_all("set-cookie")):
            flow.response.stream = True

    def response(self, flow: http.HTTPFlow) -> None:
        """It is sent."""
        self._under_way.pop(flow.id, None)
        if edge.is_recorded(flow) or flow.response is None:
            return
        _blot_request(flow)
        headers = flow.response.headers
        cookies = headers.get_all("set-cookie")
        if flow.response.stream and any(_is_session(cookie) for cookie in cookies):
            headers.set_all("set-cookie", [_blotted(cookie) for cookie in cookies])

    def error(self, flow: http.HTTPFlow) -> None:
        """There is none."""
        self._under_way.pop(flow.id, None)
        if not edge.is_recorded(flow):
            _blot_request(flow)
            if flow.response is not None:
                self.response(flow)

    def _remember(self, flow: http.HTTPFlow, response: http.Response) -> None:
        fields, gateway = flow.metadata.get(edge.REMEMBER_SESSION), self._door.edge
        if fields is None or gateway is None or gateway.sessions is None or not _has_body(flow, response):
            return
        cookie = gateway.sessions.cookie(SignedIn(*fields), secure=bool(flow.metadata.get(edge.HTTPS)))
        response.headers.add("Set-Cookie", cookie)
        response.headers["Cache-Control"] = "no-store"


def _has_body(flow: http.HTTPFlow, response: http.Response) -> bool:
    """Whether the answer has one, and therefore can stream."""
    headers = response.headers
    is_announced = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return flow.request.method == "GET" and response.status_code == 200 and is_announced


def _blot_request(flow: http.HTTPFlow) -> None:
    for name in _SECRET_IN_REQUESTS:
        if name in flow.request.headers:
            flow.request.headers[name] = BLOT
    if (path := _without_secrets(flow.request.path)) != flow.request.path:
        flow.request.path = path
    if (referer := flow.request.headers.get("referer")) is not None:
        flow.request.headers["referer"] = _without_secrets(referer)


def _without_secrets(address: str) -> str:
    """Without the values that a query gives to keys that are named like a secret."""
    return _SECRET_IN_QUERIES.sub(rf"\1={BLOT}", address)


def _is_session(cookie: str) -> bool:
    return cookie.partition("=")[0].strip() in NAMES


def _blotted(cookie: str) -> str:
    name, _, rest = cookie.partition("=")
    if name.strip() not in NAMES:
        return cookie
    return f"{name}={BLOT}{rest[rest.find(';') :] if ';' in rest else ''}"
