"""How a hook says no: directly where there is no body, through the site where one is on its way."""

from mitmproxy import http

from comfy_gateway.core import site_contract
from comfy_gateway.core.people import identity
from comfy_gateway.core.requests.refusals import UNKNOWN_PAGE, Refusal, encode, headers_of, render
from comfy_gateway.hooks import edge, forward
from comfy_gateway.hooks.edge import Edge


def wants_html(request: http.Request) -> bool:
    """Whether a person is loading a page."""
    return request.method in {"GET", "HEAD"} and identity.wants_html(request.headers.get("accept"))


def has_body(request: http.Request) -> bool:
    """Whether the client announces a body."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def answer_here(flow: http.HTTPFlow, refusal: Refusal, *, name_key: str | None = None) -> None:
    """Set the response on the flow. mitmproxy reads the whole body before it sends it."""
    flow.metadata[edge.SETTLED] = True
    body, content_type = render(refusal, wants_html=wants_html(flow.request), name_key=name_key)
    headers = {"Content-Type": f"{content_type}; charset=utf-8", **headers_of(refusal)}
    flow.response = http.Response.make(refusal.status, body, headers)
    if flow.request.method == "HEAD":
        # mitmproxy would send a body, which the client would read as the begin of its next answer.
        flow.response.raw_content = b""  # leaves Content-Length as it is for a GET


def answer_not_found(flow: http.HTTPFlow, gateway: Edge) -> None:
    """As ComfyUI answers for a file that is not there: 404 with nothing in it."""
    if has_body(flow.request):
        answer(flow, gateway, UNKNOWN_PAGE)
        return
    flow.metadata[edge.SETTLED] = True
    flow.response = http.Response.make(404, b"", {"Content-Type": "application/octet-stream"})


def send_elsewhere(flow: http.HTTPFlow, location: str, status: int) -> None:
    """Redirect a request that has no body."""
    flow.metadata[edge.SETTLED] = True
    headers = {"Location": location, "Cache-Control": "no-store"}
    flow.response = http.Response.make(status, b"", headers)


def answer(flow: http.HTTPFlow, gateway: Edge, refusal: Refusal, *, name_key: str | None = None) -> None:
    """Refuse a flow in its ``requestheaders`` hook without taking its body in."""
    if not has_body(flow.request):
        answer_here(flow, refusal, name_key=name_key)
        return
    forward.to_site(flow, gateway, site_contract.REFUSAL_PATH, {site_contract.REFUSAL: encode(refusal)})
