"""A script for mitmproxy that stands before the gateway and notes what it will change.

The gateway rewrites a flow on its way up and its answer on the way down; a recording is to hold what the client
sent and what the server said.
"""

from mitmproxy import http

REQUEST = "recorded.request"
"""Method, path and headers, as the client sent them."""
BODY = "recorded.body"
"""The request's body, where it was taken in."""
ANSWER = "recorded.answer"
"""Headers, as the server sent them."""


def pairs(headers: http.Headers) -> list[list[str]]:
    """Headers as plain lists, which mitmproxy can write into a file."""
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers.fields]


def headers_of(pairs: list[list[str]]) -> http.Headers:
    """What ``pairs`` took apart."""
    return http.Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs])


class Original:
    """Must be loaded before the gateway's script."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.metadata[REQUEST] = [flow.request.path, pairs(flow.request.headers)]

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.raw_content is not None:
            flow.metadata[BODY] = flow.request.raw_content

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response is not None:
            flow.metadata[ANSWER] = pairs(flow.response.headers)


addons = [Original()]
