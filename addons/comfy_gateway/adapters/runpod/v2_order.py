"""The body of ``POST /v2/pods``, made of what the SDK's ``create_pod`` would be told.

The settings are the same for both APIs, in the SDK's words. What v2 has no field for is refused at the start rather
than left out in silence.
"""

from collections.abc import Mapping
from typing import Any, Final

from comfy_gateway.adapters.runpod.order import RunPodOrder
from comfy_gateway.adapters.runpod.pasted import checked, with_checked_names
from comfy_gateway.core.ports import Candidate

LEAST_VOLUME_GB: Final = 10
CLOUDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "SECURE": ("SECURE",),
    "COMMUNITY": ("COMMUNITY",),
    # v2 knows no ALL: one is asked after the other.
    "ALL": ("SECURE", "COMMUNITY"),
}

_NOT_IN_V2: Final = ("country_code", "min_vcpu_count", "min_memory_in_gb", "min_download", "min_upload")


class V2Order:
    """What every pod is ordered with. Raises ValueError for what v2 cannot be told."""

    def __init__(self, defaults: RunPodOrder) -> None:
        self._defaults = defaults
        keywords = defaults.keywords()
        for name in _NOT_IN_V2:
            if name in keywords:
                raise ValueError(
                    f"{name} cannot be said to RunPod's v2 API; leave it out, or use RUNPOD_API=sdk"
                )
        if keywords.get("support_public_ip"):
            raise ValueError(
                "support_public_ip cannot be said to RunPod's v2 API; it gives tcp ports an address"
            )
        if 0 < keywords.get("volume_in_gb", 0) < LEAST_VOLUME_GB and "network_volume_id" not in keywords:
            raise ValueError(f"a volume has at least {LEAST_VOLUME_GB} GB with RunPod's v2 API")

    @property
    def gpus_per_pod(self) -> int:
        """How many GPUs a pod has, and is paid for."""
        return self._defaults.gpus_per_pod

    @property
    def cuda_versions(self) -> tuple[str, ...]:
        """Those that the machine may have; empty: any."""
        return tuple(self._defaults.keywords().get("allowed_cuda_versions", ()))

    def clouds_of(self, candidate: Candidate) -> tuple[str, ...]:
        """Where a pod at this candidate is looked for, in this order. Raises ValueError."""
        return CLOUDS_OF[checked("cloud type", self._defaults.cloud_type_of(candidate))]

    def data_center_of(self, candidate: Candidate) -> str | None:
        """The one that is asked for. Raises ValueError."""
        told: str | None = self._defaults.keywords_for(candidate).get("data_center_id")
        return told

    def body(self, name: str, env: Mapping[str, str], candidate: Candidate, cloud: str) -> dict[str, Any]:
        """What is sent. Raises ValueError for a name, id or env name that cannot be one."""
        told = self._defaults.keywords_for(candidate)
        gpu: dict[str, Any] = {"id": told["gpu_type_id"], "count": told["gpu_count"]}
        if self.cuda_versions:
            gpu["allowedCudaVersions"] = list(self.cuda_versions)
        body = {
            "name": checked("pod name", name),
            "image": told.get("image_name"),
            "templateId": told.get("template_id"),
            "gpu": gpu,
            "cloud": cloud,
            "dataCenterIds": [told["data_center_id"]] if "data_center_id" in told else None,
            "disk": told.get("container_disk_in_gb"),
            "mounts": _mounts(told),
            "ports": told["ports"].split(","),
            "args": told.get("docker_args"),
            "startSsh": told["start_ssh"],
            "env": with_checked_names(env),
        }
        return {field: value for field, value in body.items() if value is not None}


def _mounts(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """A network volume takes the place of the pod's own: RunPod takes one of them."""
    path = told["volume_mount_path"]
    if volume_id := told.get("network_volume_id"):
        return {"network": [{"volumeId": volume_id, "path": path}]}
    if size_gb := told.get("volume_in_gb"):
        return {"persistent": {"size": size_gb, "path": path}}
    return None
