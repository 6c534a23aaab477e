"""The simulated agent of a pod: `/healthz`, `/metrics` and `/files`, as far as the gateway uses it.

A cloud whose pods run the real agent still tells telemetry from here: this machine's GPU is not the pod's.
"""

import hmac
from collections.abc import AsyncIterator

from aiohttp import web
from yarl import URL

from simulators.runpod.agent_outputs import BadPathError
from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.pods import SimPod
from simulators.runpod.telemetry import GIB

LEASE_HEADER = "X-Comfy-Gateway-Lease"
TOKEN_ENV = "AUTH_TOKEN"  # noqa: S105 - the name of a variable
OUTPUT = "/files/output/"
INPUT = "/files/input/"


def is_allowed(pod: SimPod, request: web.Request) -> bool:
    """Whether the request bears the pod's token, or the pod has none."""
    token = pod.env.get(TOKEN_ENV)
    told = request.headers.get("Authorization", "")
    return not token or hmac.compare_digest(told.encode(), f"Bearer {token}".encode())


def note_lease(cloud: RunPodSimulator, pod: SimPod, request: web.Request, route: str) -> None:
    """Renews the pod's lease where the request does."""
    if route != "/healthz" and is_allowed(pod, request) and request.headers.get(LEASE_HEADER) == "1":
        cloud.renew_lease(pod)


async def answer_as_agent(
    cloud: RunPodSimulator, pod: SimPod, request: web.Request, url: URL, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Answer a request for the agent's port. `url` is path and query inside the pod, `pieces` the body."""
    if url.path == "/healthz":
        return web.json_response({"status": "ok"})
    if not is_allowed(pod, request):
        return web.json_response(
            {"error": "unauthorized"}, status=401, headers={"WWW-Authenticate": "Bearer"}
        )
    if url.path == "/metrics" and request.method in ("GET", "HEAD"):
        return await _metrics(cloud, pod)
    try:
        return await _files(cloud, pod, request, url, pieces)
    except BadPathError as error:
        return web.json_response({"error": str(error)}, status=400)
    except web.HTTPException as refusal:
        return web.json_response({"error": refusal.text}, status=refusal.status)


async def _files(
    cloud: RunPodSimulator, pod: SimPod, request: web.Request, url: URL, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    memory = await cloud.hosting.agent_memory(pod)
    match request.method, url.path:
        case "GET" | "HEAD", "/files/output":
            return await memory.outputs.list(url.query)
        case "POST", "/files/output/fetched":
            return await memory.outputs.note(request)
        case "GET" | "HEAD", path if path.startswith(OUTPUT):
            return await memory.outputs.read(path.removeprefix(OUTPUT))
        case "GET", path if path.startswith(INPUT):
            return await memory.uploads.progress(path.removeprefix(INPUT), url.query)
        case "PUT", path if path.startswith(INPUT):
            path = path.removeprefix(INPUT)
            return await memory.uploads.receive(path, url.query, request.headers, pieces)
        case _:
            raise web.HTTPNotFound(text="not found")


async def _metrics(cloud: RunPodSimulator, pod: SimPod) -> web.Response:
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
