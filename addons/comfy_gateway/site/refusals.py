"""Answers no without taking the request's body in."""

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.requests.refusals import Refusal, decode, headers_of, render


def answer(refusal: Refusal) -> web.Response:
    """The refusal as JSON."""
    body, content_type = render(refusal, wants_html=False)
    return web.Response(
        status=refusal.status, body=body, content_type=content_type, headers=headers_of(refusal)
    )


async def refuse(request: web.Request) -> web.StreamResponse:
    """Answer what the hooks decided. The body, however large, is never read."""
    return answer(decode(request.headers[site_contract.REFUSAL]))
