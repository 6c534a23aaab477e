"""What the pod's agent says, as JSON of the contract (design: "Telemetry JSON")."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """The part of one telemetry message that decides about idleness."""

    utilization_percent: float | None
    """The busiest GPU's utilisation, or None when no GPU's could be read."""
    queue_running: int | None
    queue_pending: int | None
    """ComfyUI's own queue, or None when the agent could not ask it."""
    synced_bytes: int | None = None
    """What a running model_sync has fetched so far; None while none runs."""

    @property
    def is_queue_empty(self) -> bool | None:
        """Whether ComfyUI has nothing to do; None when that is not known."""
        if self.queue_running is None or self.queue_pending is None:
            return None
        return self.queue_running == 0 and self.queue_pending == 0


def parse_sample(message: Any) -> Sample:
    """Read one telemetry message. Raises ValueError naming the first field that has a wrong type."""
    if not isinstance(message, Mapping):
        raise ValueError("telemetry is no JSON object")
    gpus = message.get("gpus")
    if not isinstance(gpus, list) or not all(isinstance(gpu, Mapping) for gpu in gpus):
        raise ValueError("telemetry field 'gpus' is no list of objects")
    readings = [_percentage(gpu, "utilization_percent") for gpu in gpus]
    known = [reading for reading in readings if reading is not None]
    comfyui = message.get("comfyui")
    running = pending = None
    if comfyui is not None:
        if not isinstance(comfyui, Mapping):
            raise ValueError("telemetry field 'comfyui' is no object")
        running = _count(comfyui, "queue_running")
        pending = _count(comfyui, "queue_pending")
    return Sample(
        utilization_percent=max(known) if known and len(known) == len(readings) else None,
        queue_running=running,
        queue_pending=pending,
        synced_bytes=_synced_bytes(message.get("model_sync")),
    )


def _synced_bytes(sync: Any) -> int | None:
    if not isinstance(sync, Mapping) or sync.get("state") != "running":
        return None
    return _count(sync, "done_bytes") or 0


def _percentage(holder: Mapping[str, Any], name: str) -> float | None:
    value = holder.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError(f"telemetry field {name!r} is no percentage")
    return float(value)


def _count(holder: Mapping[str, Any], name: str) -> int | None:
    value = holder.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"telemetry field {name!r} is no count")
    return value
