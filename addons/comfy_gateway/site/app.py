"""The aiohttp application on loopback: what is not simply passed on to one ComfyUI server is answered here."""

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.refusals import NOT_FROM_HERE, UNKNOWN_PAGE
from comfy_gateway.site.refusals import answer, refuse
from comfy_gateway.site.results import Results
from comfy_gateway.site.socket import Socket
from comfy_gateway.site.status import Status

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(*, key: str, socket: Socket, results: Results, status: Status) -> web.Application:
    """The whole site. ``key`` is what the hooks send in ``site_contract.KEY`` with every request."""

    @web.middleware
    async def only_hooks(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(site_contract.KEY, "").encode(), key.encode()):
            return answer(NOT_FROM_HERE)
        return await handler(request)

    app = web.Application(middlewares=[only_hooks])
    app.router.add_get(site_contract.RELAY_PATH, socket.handle)
    app.router.add_route("*", site_contract.REFUSAL_PATH, refuse)
    app.router.add_get(site_contract.HISTORY_PATH + "{prompt_id}", results.history)
    app.router.add_get("/gateway/healthz", status.healthz)
    app.router.add_get("/gateway/readyz", status.readyz)
    app.router.add_get("/gateway/metrics", status.metrics)
    app.router.add_route("*", "/{path:.*}", _unknown)
    return app


async def _unknown(_request: web.Request) -> web.StreamResponse:
    return answer(UNKNOWN_PAGE)
