"""Adds our module to the list that ComfyUI's page imports, whoever answers it."""

from mitmproxy import http

from comfy_gateway.core.interface.extension_list import EXTENSIONS_ROUTE, with_badge
from comfy_gateway.core.requests.classify import PathRefused, route_of
from comfy_gateway.hooks import edge

_CONDITIONS = ("accept-encoding", "if-none-match", "if-modified-since", "range")


class BadgeEntryHook:
    """Before the router, which has the answer read that is marked here. Whatever is not the list passes as it is."""

    name = "gateway-badge-entry"

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Marks the request, and asks for the whole list in plain."""
        if flow.request.method != "GET" or edge.is_recorded(flow):
            return
        try:
            is_list = route_of(flow.request.path) == EXTENSIONS_ROUTE
        except PathRefused:
            return
        if is_list:
            flow.metadata[edge.EXTENSIONS] = True
            for name in _CONDITIONS:
                flow.request.headers.pop(name, None)

    def response(self, flow: http.HTTPFlow) -> None:
        """The whole answer has come."""
        response = flow.response
        if response is None or not flow.metadata.pop(edge.EXTENSIONS, None) or edge.is_recorded(flow):
            return
        body = response.raw_content
        if response.status_code != 200 or body is None or "content-encoding" in response.headers:
            return
        if (listed := with_badge(body)) is not None:
            response.raw_content = listed
            response.headers["Content-Length"] = str(len(listed))
            for name in ("etag", "last-modified"):  # they speak of the list without us
                response.headers.pop(name, None)
