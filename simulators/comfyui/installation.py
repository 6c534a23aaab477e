"""What is installed on a server: which core, node classes and models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"checkpoints": ("sd15.safetensors", "sdxl.safetensors"), "loras": ("detail.safetensors",)}
)


@dataclass(frozen=True)
class Installation:
    """Fixed for one life of a server.

    newer          a core after 0.3.64: /api/jobs, canonical UUIDs as prompt ids, secrets out of /queue
    combo_objects  every list of choices in /object_info is `["COMBO", {"options": […]}]`
    without        node classes that this server lacks
    models         names by model folder; a folder that is not named here is empty
    """

    newer: bool = False
    combo_objects: bool = False
    without: frozenset[str] = frozenset()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MODELS)

    @property
    def version(self) -> str:
        return "0.38.1" if self.newer else "0.3.64"
