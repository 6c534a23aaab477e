"""The part of a create call that is the same for every pod, and how a call is put together from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_gateway.adapters.runpod.pasted import checked, checked_count, checked_text
from comfy_gateway.core.ports import Candidate

DEFAULT_PORTS: Final = "8188/http,8000/http"


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} has to be true or false, not {value!r}")


def _cuda_versions(name: str, value: object) -> list[str]:
    if isinstance(value, list | tuple) and value:
        return [checked("CUDA version", version) for version in value]
    raise ValueError(f'{name} has to be a list such as ["12.8"], not {value!r}')


def _as(kind: str) -> Callable[[str, object], str]:
    return lambda _name, value: checked(kind, value)


_EXTRAS: Final[dict[str, Callable[[str, object], Any]]] = {
    "image_name": _as("image name"),
    "cloud_type": _as("cloud type"),
    "support_public_ip": _flag,
    "start_ssh": _flag,
    "data_center_id": _as("data centre id"),
    "country_code": _as("country code"),
    "gpu_count": lambda name, value: checked_count(name, value, minimum=1),
    "volume_in_gb": checked_count,
    "container_disk_in_gb": lambda name, value: checked_count(name, value, minimum=1),
    "min_vcpu_count": checked_count,
    "min_memory_in_gb": checked_count,
    "docker_args": checked_text,
    "volume_mount_path": _as("mount path"),
    "template_id": _as("template id"),
    "network_volume_id": _as("network volume id"),
    "allowed_cuda_versions": _cuda_versions,
    "min_download": checked_count,
    "min_upload": checked_count,
}
"""Keyword names of the SDK's ``create_pod`` that the extra payload may give, and what reads their values."""

_NOT_EXTRA: Final[dict[str, str]] = {
    "name": "the gateway knows its pods by their names",
    "env": "it carries the pod's tokens; further variables are POD_ENV_*",
    "ports": "they follow from RUNPOD_PROXY_PORT and RUNPOD_TELEMETRY_PORT",
    "gpu_type_id": "that is RUNPOD_GPU_TYPE_ID",
    "instance_id": "it asks for a pod without a GPU",
}


@dataclass(frozen=True, slots=True)
class RunPodOrder:
    """What every pod of this gateway is ordered with. Raises ValueError naming the first field that is wrong.

    One of ``image_name`` and ``template_id`` is needed. ``extra`` holds keyword names of the SDK's
    ``create_pod``; an entry there wins over the field of the same meaning and over the candidate's cloud type
    and data centre.
    """

    image_name: str | None = None
    template_id: str | None = None
    gpu_count: int = 1
    volume_gb: int | None = None
    """None: RunPod's default for a pod without a volume disk."""
    container_disk_gb: int | None = 50
    """None: the template's, or the SDK's 10 where there is no template."""
    network_volume_id: str | None = None
    volume_mount_path: str = "/workspace"
    ports: str = DEFAULT_PORTS
    """``<port>/http``, comma separated. Without ``/http`` RunPod's proxy answers 404 for ever."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.image_name or self.template_id or {"image_name", "template_id"} & set(self.extra)):
            raise ValueError("an image name or a template id is needed")
        checked("ports", self.ports)
        for name, value in self.extra.items():
            if name in _NOT_EXTRA:
                raise ValueError(f"{name} cannot be given as extra payload: {_NOT_EXTRA[name]}")
            if name not in _EXTRAS:
                raise ValueError(
                    f"{name!r} is no keyword of the SDK's create_pod; known are {', '.join(_EXTRAS)}"
                )
            _EXTRAS[name](name, value)
        self.keywords()

    def keywords(self) -> dict[str, Any]:
        """Keywords for ``create_pod`` that hold for every candidate, all of them checked.

        No SSH and no public address unless the extra payload asks for them: the gateway needs neither, the
        one opens a door and the other rules machines out.
        """
        settings: dict[str, Any] = {
            "image_name": self.image_name or None,
            "template_id": self.template_id or None,
            "gpu_count": self.gpu_count,
            "volume_in_gb": self.volume_gb,
            "container_disk_in_gb": self.container_disk_gb,
            "network_volume_id": self.network_volume_id or None,
            "volume_mount_path": self.volume_mount_path,
            "start_ssh": False,
            "support_public_ip": False,
        } | dict(self.extra)
        return {name: _EXTRAS[name](name, value) for name, value in settings.items() if value is not None} | {
            "ports": self.ports
        }

    def keywords_for(self, candidate: Candidate) -> dict[str, Any]:
        """Keywords for this candidate, all of them checked. Raises ValueError for a candidate without a GPU.

        The SDK buys a CPU pod where the GPU type is missing.
        """
        where = {
            "cloud_type": checked("cloud type", candidate.cloud_type),
            "gpu_type_id": checked("GPU type id", candidate.gpu_type),
        }
        if candidate.data_center:
            where["data_center_id"] = checked("data centre id", candidate.data_center)
        return where | self.keywords()

    def cloud_type_of(self, candidate: Candidate) -> str:
        """Where a pod at this candidate would really be rented."""
        return str(self.extra.get("cloud_type", candidate.cloud_type))

    @property
    def gpus_per_pod(self) -> int:
        """How many GPUs a pod has, and is paid for."""
        return int(self.extra.get("gpu_count", self.gpu_count))
