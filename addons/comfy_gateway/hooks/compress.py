"""Compresses the long lists that a page asks for at each load, and spares those that the browser has already.

Each is asked of its server every time: it changes when a model or a file comes, and differs between users.
"""

from typing import Final

from mitmproxy import http

from comfy_gateway.core.requests.classify import PathRefused, route_of
from comfy_gateway.core.requests.content_coding import WORTHWHILE_BYTES, coding_for, entity_tag, is_known_to
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.header_fields import rewrite
from comfy_gateway.service.interface.compressed_bodies import CompressedBodies

_ROUTES: Final = frozenset({"/object_info", "/i18n"})


class CompressHook:
    """Before the router, which may aim the flow at a path of the site's and has the answer read that is marked here."""

    name = "gateway-compress"

    def __init__(self) -> None:
        self._bodies = CompressedBodies()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Notes the route: the router may aim the flow at a path of the site's."""
        if flow.request.method == "GET":
            try:
                is_one = route_of(flow.request.path) in _ROUTES
            except PathRefused:
                return
            if is_one:
                flow.metadata[edge.COMPRESS] = True

    async def response(self, flow: http.HTTPFlow) -> None:
        """The whole answer has come."""
        response = flow.response
        if response is None or not flow.metadata.pop(edge.COMPRESS, None) or edge.is_recorded(flow):
            return
        body = response.raw_content
        if response.status_code != 200 or body is None or len(body) < WORTHWHILE_BYTES:
            return
        if "content-encoding" in response.headers or "etag" in response.headers:
            return
        digest = await self._bodies.digest(body)
        headers = flow.request.headers
        if is_known_to(headers.get("if-none-match", ""), digest):
            response.status_code, response.reason = 304, "Not Modified"
            response.raw_content = b""
            told = {"ETag": entity_tag(digest, ""), "Cache-Control": "private, no-cache"}
            rewrite(response.headers, drop={"content-length", "content-type"}, put=told)
            return
        content_type = response.headers.get("content-type", "")
        coding = coding_for(headers.get("accept-encoding", ""), content_type, len(body))
        told = {
            "ETag": entity_tag(digest, coding),
            "Cache-Control": "private, no-cache",
            "Vary": "Accept-Encoding",
        }
        if coding:
            body = await self._bodies.coded(body, digest, coding)
            told |= {"Content-Encoding": coding, "Content-Length": str(len(body))}
            response.raw_content = body
        rewrite(response.headers, put=told)
