"""Answers files of the front end from what the gateway keeps of them."""

from mitmproxy import http

from comfy_gateway.core.interface import files as interface_files
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import Edge
from comfy_gateway.service.interface.cache import Asked


async def serve(flow: http.HTTPFlow, gateway: Edge) -> bool:
    """Set the response, or say that a server must answer; an address with a version is then made the server's own."""
    request = flow.request
    path, has_query, query = request.path.partition("?")
    tag, plain = interface_files.split(path)
    headers = request.headers
    is_plain_get = request.method == "GET" and "range" not in headers
    if gateway.interface is not None and is_plain_get and (not has_query or path == interface_files.PAGE):
        asked = Asked(path, headers.get("accept-encoding", ""), headers.get("if-none-match", ""))
        served = await gateway.interface.serve(asked)
        if served is not None:
            flow.metadata[edge.SETTLED] = True
            flow.metadata[edge.SOURCE] = str(Source.DUTY)
            # ``make`` would compress a body once more that it is told is compressed.
            flow.response = http.Response.make(served.status, b"", dict(served.headers))
            flow.response.raw_content = served.body
            flow.response.headers["Content-Length"] = str(len(served.body))
            return True
    if tag is not None:
        request.path = f"{plain}?{query}" if has_query else plain
    return False
