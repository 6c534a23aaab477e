"""Answers of the REST API that are refusals, and those that faults make of its answers."""

from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from simulators.clock import Clock
from simulators.runpod.faults import AMBIGUOUS_TEXT, Fault
from simulators.runpod.replies import spoilt_reply

PROBLEM = "application/problem+json"


def problem(
    status: int, detail: str, *, errors: Sequence[str] = (), headers: dict[str, str] | None = None
) -> web.Response:
    """A refusal as the published contract describes it."""
    told = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        told["errors"] = list(errors)
    return web.json_response(told, status=status, content_type=PROBLEM, headers=headers)


async def spoilt_rest_reply(
    fault: Fault, request: web.Request, clock: Clock, body: bytes = b""
) -> web.StreamResponse:
    """The reply that the fault makes of a call; `body` is what a healthy service would have said."""
    match fault.kind:
        case "unauthorized":
            return problem(401, fault.text or "invalid bearer token")
        case "unauthorized_errors":
            return problem(403, fault.text or "Unauthorized")
        case "errors":
            return problem(fault.status or 500, fault.text or AMBIGUOUS_TEXT)
        case "rate_limited":
            return problem(
                fault.status or 429,
                fault.text or "rate limit exceeded for the minute window",
                headers={"Retry-After": f"{fault.retry_after_s:.0f}"},
            )
        case "http_error" | "commit_error":
            return problem(fault.status or 500, fault.text or "internal server error")
        case "null_data":
            return web.json_response(None, status=fault.status or 200)
        case _:
            return await spoilt_reply(fault, "", request, clock, body)
