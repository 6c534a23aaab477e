"""Pods and GPU types as the REST API shows them."""

from datetime import UTC, datetime
from typing import Any

from simulators.runpod.catalog import DATA_CENTERS, GpuType, Stock
from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.pods import SimPod
from simulators.runpod.resolvers import PROXY_PUBLIC_PORT, TCP_HOST

ACTIONS: dict[str, tuple[str, ...]] = {
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "TERMINATED": (),
}
"""By status: what may be asked of a pod."""
CUDA_VERSION = "12.8"


def status_of(pod: SimPod, at_s: float) -> str:
    """Unlike GraphQL's `desiredStatus` this is what was observed."""
    event = pod.shown_event(at_s)
    if event is None:
        return "TERMINATED"
    if event.what == "exited":
        return "EXITED"
    age_s = at_s - event.at_s
    if pod.unplaced:
        return "PROVISIONING"
    if not pod.stuck and pod.container_runs(age_s):
        return "RUNNING"
    if pod.crashes_after_s is not None and age_s >= pod.delays.runtime_s:
        return "STARTING"
    return "PROVISIONING" if pod.stuck or age_s < pod.delays.runtime_s / 2 else "STARTING"


async def rest_pod_view(cloud: RunPodSimulator, pod: SimPod, at_s: float) -> dict[str, Any]:
    """The pod at that moment."""
    order, status = pod.order, status_of(pod, at_s)
    started = next((event for event in reversed(pod.events) if event.what in ("created", "resumed")), None)
    is_up = started is not None and status == "RUNNING"
    view = {
        "id": pod.id,
        "name": pod.name,
        "image": order.image,
        "args": order.docker_args,
        "disk": order.container_disk_gb,
        "ports": [port for port in order.ports.split(",") if port],
        "env": dict(pod.env),
        "registry": None,
        "status": status,
        "actions": list(ACTIONS[status]),
        "mounts": _mounts(pod),
        "cloud": "COMMUNITY" if order.cloud_type == "COMMUNITY" else "SECURE",
        "dataCenterId": None if pod.unplaced else pod.data_center,
        "cudaVersion": CUDA_VERSION,
        "ssh": {"proxy": None, "direct": None},
        # the pod keeps no link to its template
        "template": None,
        "cost": 0.0 if status in ("EXITED", "TERMINATED") else pod.usd_per_hour,
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": await _runtime(cloud, pod, at_s) if status == "RUNNING" else None,
        "createdAt": _moment(cloud, pod.created_at_s),
        "startedAt": _moment(cloud, started.at_s + pod.delays.runtime_s) if is_up and started else None,
    }
    if pod.gpu is not None:
        view["gpu"] = {"id": pod.gpu.id, "count": order.gpu_count}
    else:
        view["cpu"] = {"id": "cpu5c", "vcpuCount": 4, "memory": 8}
    return view


def _mounts(pod: SimPod) -> dict[str, Any]:
    order = pod.order
    if order.network_volume_id is not None:
        return {"network": [{"volumeId": order.network_volume_id, "path": order.volume_mount_path}]}
    if order.volume_gb:
        return {"persistent": {"size": max(10, order.volume_gb), "path": order.volume_mount_path}}
    return {}


async def _runtime(cloud: RunPodSimulator, pod: SimPod, at_s: float) -> dict[str, Any] | None:
    age_s = pod.shown_runtime_s(at_s)
    if age_s is None:
        return None
    queue = await cloud.hosting.queue(pod) if pod.app_listens(cloud.clock.monotonic()) else None
    percent = pod.telemetry.gpu_percent(queue)
    gpu = {"memoryUtil": 10} if percent is None else {"util": round(percent), "memoryUtil": 10}
    ports = [
        {
            "private": number,
            "public": PROXY_PUBLIC_PORT + index,
            "type": kind,
            "ip": TCP_HOST if kind == "tcp" else "100.65.0.7",
        }
        for index, (number, kind) in enumerate(pod.declared_ports)
    ]
    return {
        "uptime": int(age_s - pod.delays.runtime_s),
        "gpus": [gpu] * (pod.order.gpu_count if pod.gpu else 0),
        "cpu": {"util": 3},
        "memory": {"util": 6},
        "ports": ports if age_s >= pod.delays.port_s else [],
    }


def _moment(cloud: RunPodSimulator, at_s: float) -> str:
    epoch_s = cloud.clock.time() - (cloud.clock.monotonic() - at_s)
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rest_gpu_view(gpu: GpuType, stock: Stock | None) -> dict[str, Any]:
    """`stock` is None where it was not asked for."""
    view: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.display_name,
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": gpu.memory_gb,
        "secure": gpu.secure_usd_per_hour is not None,
        "community": gpu.community_usd_per_hour is not None,
        "price": {
            "secure": gpu.secure_usd_per_hour or 0.0,
            "community": gpu.community_usd_per_hour or 0.0,
        },
        "maxCount": {"secure": 8, "community": 8},
    }
    if stock is not None:
        view["availability"] = stock
        view["cudaVersions"] = [{"version": CUDA_VERSION, "available": stock != "NONE"}]
    if stock not in (None, "NONE"):
        # left out where there is none anywhere
        view["dataCenters"] = [
            {"id": id_, "name": name, "availability": stock} for id_, name in DATA_CENTERS.items()
        ]
    return view
