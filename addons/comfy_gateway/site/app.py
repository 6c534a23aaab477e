"""The aiohttp application on loopback: what is not simply passed on to one ComfyUI server is answered here."""

import hmac
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpaces
from comfy_gateway.core.requests.refusals import NOT_FROM_HERE, UNKNOWN_PAGE
from comfy_gateway.site.asker import Asker
from comfy_gateway.site.refusals import answer, refuse
from comfy_gateway.site.servers import off_the_loop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Part(Protocol):
    """What answers some of the site's paths."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Its paths and who answers them."""
        ...


def build_app(*, key: str, parts: Iterable[Part], spaces: InputSpaces = EVERYBODYS) -> web.Application:
    """The whole site. ``key`` is what the hooks send in ``site_contract.KEY`` with every request. What servers tell of
    prompts names inputs as the asker does (``spaces``).
    """

    @web.middleware
    async def only_hooks(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(site_contract.KEY, "").encode(), key.encode()):
            return answer(NOT_FROM_HERE)
        return await handler(request)

    @web.middleware
    async def with_own_names(request: web.Request, handler: Handler) -> web.StreamResponse:
        answered = await handler(request)
        is_of_prompts = request.path.startswith(site_contract.COMFY_PATH)
        body = answered.body if is_of_prompts and isinstance(answered, web.Response) else None
        if spaces.are_apart and isinstance(answered, web.Response) and isinstance(body, bytes):
            own = spaces.own(Asker.of(request).user)
            answered.body = await off_the_loop(len(body), lambda: own.shown(body))
        return answered

    app = web.Application(middlewares=[only_hooks, with_own_names])
    app.router.add_route("*", site_contract.REFUSAL_PATH, refuse)
    for part in parts:
        app.router.add_routes(part.routes())
    app.router.add_route("*", "/{path:.*}", _unknown)
    return app


async def _unknown(_request: web.Request) -> web.StreamResponse:
    return answer(UNKNOWN_PAGE)
