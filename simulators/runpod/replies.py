"""Answers of the API that are not answers: carried out for faults that strike INSTEAD or AFTER."""

import asyncio
import json
import socket
import struct

from aiohttp import web

from simulators.clock import Clock
from simulators.runpod.faults import AMBIGUOUS_TEXT, Fault

FOREVER_S = 24 * 3600.0


async def spoilt_reply(
    fault: Fault, key: str, request: web.Request, clock: Clock, body: bytes = b""
) -> web.StreamResponse:
    """The reply that the fault makes of a call; `body` is what a healthy service would have said."""
    match fault.kind:
        case "unauthorized":
            return web.json_response({"message": fault.text or "Unauthorized"}, status=401)
        case "unauthorized_errors":
            return _refusal(fault.text or "Unauthorized", key)
        case "errors":
            return _refusal(fault.text or AMBIGUOUS_TEXT, key)
        case "rate_limited":
            return web.json_response(
                {"message": fault.text or "Too Many Requests"},
                status=fault.status or 429,
                headers={"Retry-After": f"{fault.retry_after_s:.0f}"},
            )
        case "http_error" | "commit_error":
            return web.json_response(
                {"message": fault.text or "Internal Server Error"}, status=fault.status or 500
            )
        case "html":
            page = fault.body or "<html><body><h1>Bad gateway</h1></body></html>"
            return web.Response(status=fault.status or 502, text=page, content_type="text/html")
        case "empty":
            return web.Response(status=fault.status or 200, content_type="application/json")
        case "null_data":
            return web.json_response({"data": None}, status=fault.status or 200)
        case "reply":
            return web.Response(
                status=fault.status or 200, text=fault.body or "", content_type="application/json"
            )
        case "hang" | "commit_hang":
            await clock.sleep(FOREVER_S if fault.seconds is None else fault.seconds)
            return _reset(request)
        case "reset" | "commit_reset":
            return _reset(request)
        case "trickle":
            return await _trickle(request, body, 1.0 if fault.seconds is None else fault.seconds, clock)
        case _:
            raise AssertionError(f"{fault.kind} does not replace an answer")


def refused(message: str, *, status: int = 400) -> web.Response:
    """What the API says to a request that it cannot execute."""
    return web.json_response({"errors": [{"message": message}]}, status=status)


def _refusal(text: str, key: str) -> web.Response:
    return web.json_response({"errors": [{"message": text, "path": [key]}], "data": {key: None}})


def _reset(request: web.Request) -> web.Response:
    """Send a TCP reset. The response that is returned reaches nobody."""
    if request.transport is not None:
        sock: socket.socket = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response(status=500)


async def _trickle(request: web.Request, body: bytes, every_s: float, clock: Clock) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(len(body))}
    )
    await response.prepare(request)
    try:
        for index in range(len(body)):
            await clock.sleep(every_s)
            await response.write(body[index : index + 1])
    except ConnectionError:
        # the client gave up, which is what this is for
        await asyncio.sleep(0)
    return response


def as_body(reply: object) -> bytes:
    return json.dumps(reply).encode()
