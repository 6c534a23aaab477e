"""The telemetry agent of a pod, as far as the gateway uses it: `/healthz` and `/metrics`."""

import hmac

from aiohttp import web

from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.pods import SimPod
from simulators.runpod.telemetry import GIB

LEASE_HEADER = "X-Comfy-Gateway-Lease"
TOKEN_ENV = "AUTH_TOKEN"  # noqa: S105 - the name of a variable


async def answer_as_agent(
    cloud: RunPodSimulator, pod: SimPod, request: web.Request, path: str
) -> web.StreamResponse:
    """Answer a request for the agent's port; `path` is the path inside the pod, with its query."""
    route = path.partition("?")[0]
    if route == "/healthz":
        return web.json_response({"status": "ok"})
    token = pod.env.get(TOKEN_ENV)
    told = request.headers.get("Authorization", "")
    if token and not hmac.compare_digest(told.encode(), f"Bearer {token}".encode()):
        return web.json_response(
            {"error": "unauthorized"}, status=401, headers={"WWW-Authenticate": "Bearer"}
        )
    if request.headers.get(LEASE_HEADER) == "1":
        cloud.renew_lease(pod)
    if route != "/metrics" or request.method not in ("GET", "HEAD"):
        return web.json_response({"error": "not found"}, status=404)
    step = pod.telemetry.step()
    if step.body is not None or (step.status or 200) != 200:
        return web.Response(status=step.status or 200, text=step.body or "")
    now_s = cloud.clock.monotonic()
    message = pod.telemetry.message(
        queue=await cloud.hosting.queue(pod) if pod.app_listens(now_s) else None,
        uptime_s=pod.up_for_s(now_s) or 0.0,
        gpu_names=[pod.gpu.id] * pod.order.gpu_count if pod.gpu else [],
        gpu_memory_bytes=pod.gpu.memory_gb * GIB if pod.gpu else 0,
    )
    return web.json_response(message)
