"""Who may ask, and whose asking renews the lease."""

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LEASE_HEADER = "X-Comfy-Gateway-Lease"
OPEN_PATHS = frozenset({"/healthz"})
QUERY_TOKEN_PATHS = frozenset({"/stream", "/ws"})
"""Where a browser cannot set a header. Addresses end up in logs and histories: nowhere else."""


def guard(token: str | None, renew: Callable[[], None]) -> Middleware:
    """Lets pass what bears the token; without a token everything passes and nothing renews."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS or token is None:
            return await handler(request)
        if not _bears(request, token):
            return web.json_response(
                {"error": "the agent's token is missing or wrong"},
                status=401,
                headers={"WWW-Authenticate": 'Bearer realm="agent"'},
            )
        if request.headers.get(LEASE_HEADER) == "1":
            renew()
        return await handler(request)

    return guarded


def _bears(request: web.Request, token: str) -> bool:
    scheme, _, told = request.headers.get("Authorization", "").partition(" ")
    candidates = [told.strip()] if scheme.lower() == "bearer" else []
    if request.path in QUERY_TOKEN_PATHS:
        candidates += request.query.getall("token", [])
    # surrogateescape: bytes that are no UTF-8 arrive as lone surrogates
    return any(
        hmac.compare_digest(one.encode("utf-8", "surrogateescape"), token.encode()) for one in candidates[:2]
    )


@web.middleware
async def json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal is {"error": "…"}, also aiohttp's own 404, 405 and 413."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        if refusal.status < 400:
            raise
        headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
        return web.json_response(
            {"error": refusal.text or refusal.reason}, status=refusal.status, headers=headers
        )
