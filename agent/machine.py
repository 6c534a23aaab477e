"""CPU, memory and disk of what this container may use, and model_sync's progress. Blocking; called in a thread."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agent.cgroup import Cgroup, allowed_cores

SYNC_SILENCE_S = 120.0
"""A fetch that has not written its status for so long has died. Otherwise its pod would never be idle again."""
MOST_STATUS_BYTES = 64 * 1024
SYNC_STATES = ("idle", "running", "failed")


@dataclass(frozen=True, slots=True)
class ModelSync:
    state: str
    """idle, running or failed."""
    done_bytes: int | None
    total_bytes: int | None


IDLE = ModelSync("idle", 0, 0)


@dataclass(frozen=True, slots=True)
class MachineReading:
    """None: cannot be read."""

    cpu_percent: float | None = None
    """Of what the container may use, 0 to 100, since the last reading."""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_total_bytes: int | None = None
    model_sync: ModelSync | None = None


class MachineReader:
    """Reads one container.

    folder       whose disk counts
    sync_status  JSON that model_sync keeps, or None where none is to be expected
    """

    def __init__(
        self,
        folder: Path,
        sync_status: Path | None,
        *,
        monotonic: Callable[[], float],
        time: Callable[[], float],
        cgroup: Cgroup | None = None,
    ) -> None:
        self._folder = folder
        self._sync_status = sync_status
        self._monotonic = monotonic
        self._time = time
        self._cgroup = cgroup or Cgroup()
        self._cpu_before: tuple[float, float] | None = None
        self._has_host_percent = False

    def read(self) -> MachineReading:
        memory_used, memory_total = self._memory()
        disk_used, disk_total = self._disk()
        return MachineReading(
            self._cpu_percent(), memory_used, memory_total, disk_used, disk_total, self._model_sync()
        )

    def _cpu_percent(self) -> float | None:
        """None at the first reading: there is nothing to compare with."""
        use = self._cgroup.cpu()
        if use is None:
            percent = psutil.cpu_percent()
            had, self._has_host_percent = self._has_host_percent, True
            return percent if had else None
        now_s, before = self._monotonic(), self._cpu_before
        self._cpu_before = now_s, use.used_s
        if before is None or now_s <= before[0]:
            return None
        cores = min(use.limit_cores, allowed_cores())
        percent = 100 * (use.used_s - before[1]) / (now_s - before[0]) / cores
        return round(min(100.0, max(0.0, percent)), 1)

    def _memory(self) -> tuple[int, int]:
        host = psutil.virtual_memory()
        use = self._cgroup.memory()
        if use is None or use.limit_bytes >= host.total:
            return host.total - host.available, host.total
        return use.used_bytes, use.limit_bytes

    def _disk(self) -> tuple[int | None, int | None]:
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            return None, None
        return usage.used, usage.total

    def _model_sync(self) -> ModelSync | None:
        """Idle where there is no status; None for one that makes no sense."""
        if self._sync_status is None:
            return IDLE
        try:
            written_s = self._sync_status.stat().st_mtime
            with self._sync_status.open("rb") as file:
                told = json.loads(file.read(MOST_STATUS_BYTES))
        except FileNotFoundError:
            return IDLE
        except (OSError, ValueError):
            return None
        if not isinstance(told, dict) or told.get("state") not in SYNC_STATES:
            return None
        is_dead = told["state"] == "running" and self._time() - written_s > SYNC_SILENCE_S
        return ModelSync(
            "failed" if is_dead else told["state"],
            _count(told.get("done_bytes")),
            _count(told.get("total_bytes")),
        )


def _count(told: Any) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else None
