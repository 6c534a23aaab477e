"""What `POST /v2/pods` takes. Fields that the contract does not know are refused, as by the real service."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulators.runpod.catalog import GpuType
from simulators.runpod.pods import PodOrder

type CudaVersion = Annotated[str, Field(pattern=r"^\d+\.\d+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class GpuWish(_Strict):
    id: str
    count: int = Field(default=1, ge=1)
    allowedCudaVersions: list[CudaVersion] = []
    minCudaVersion: CudaVersion | None = None


class PersistentMount(_Strict):
    size: int = Field(ge=10)
    path: str


class NetworkMount(_Strict):
    volumeId: str
    path: str


class Mounts(_Strict):
    persistent: PersistentMount | None = None
    network: list[NetworkMount] = Field(default=[], max_length=1)


class CreatePod(_Strict):
    """The simulator makes no CPU pods by this API, starts no Jupyter and joins no network: those fields are ignored."""

    name: str = Field(min_length=1)
    image: str | None = None
    templateId: str | None = Field(default=None, min_length=1)
    args: str = ""
    disk: int | None = Field(default=None, ge=1)
    env: dict[str, str] = {}
    ports: list[str] = []
    registry: str | None = None
    gpu: GpuWish
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    dataCenterIds: list[str] = []
    mounts: Mounts = Mounts()
    startSsh: bool = False
    startJupyter: bool = False
    globalNetworking: bool = False

    @model_validator(mode="after")
    def _has_an_image(self) -> Self:
        if self.image is None and self.templateId is None:
            raise ValueError("image is required")
        return self

    def rule_broken(self) -> str | None:
        """What is wrong between fields, which the real service says by 400."""
        if self.mounts.persistent is not None and self.mounts.network:
            return "mounts.persistent and mounts.network are mutually exclusive"
        if self.gpu.allowedCudaVersions and self.gpu.minCudaVersion is not None:
            return "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive"
        return None

    def order(self, gpu: GpuType) -> PodOrder:
        """The same for the cloud. Of several data centres the first is taken."""
        persistent = self.mounts.persistent
        network = self.mounts.network[0] if self.mounts.network else None
        mount = persistent or network
        return PodOrder(
            name=self.name,
            image=self.image or "",
            template_id=self.templateId,
            env=dict(self.env),
            ports=",".join(self.ports),
            gpu=gpu,
            gpu_count=self.gpu.count,
            cloud_type=self.cloud,
            data_center=self.dataCenterIds[0] if self.dataCenterIds else None,
            network_volume_id=None if network is None else network.volumeId,
            container_disk_gb=self.disk or 50,
            volume_gb=0 if persistent is None else persistent.size,
            volume_mount_path="" if mount is None else mount.path,
            docker_args=self.args,
        )
