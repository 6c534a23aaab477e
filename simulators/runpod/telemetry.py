"""What a pod's agent says, and how a test bends it.

By default the agent tells the truth about the pod's simulated ComfyUI: 100 % while a prompt runs, else 0 %.
A script replaces values for a while, then the truth returns.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from simulators.clock import Clock

GIB = 1024**3


class ModelSync(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: Literal["idle", "running", "failed"] = "idle"
    done_bytes: int = 0
    total_bytes: int = 0


class Step(BaseModel):
    """What is said for `for_s` seconds (None: for ever). A field that is not set follows the truth.

    gpu_percent         None says that it could not be read
    comfyui_answers     False makes `comfyui` null
    status, body        the agent answers with this HTTP status, or with this text instead of JSON
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    for_s: float | None = Field(default=None, gt=0.0)
    gpu_percent: float | None = None
    queue_running: int | None = None
    queue_pending: int | None = None
    comfyui_answers: bool | None = None
    model_sync: ModelSync | None = None
    status: int | None = None
    body: str | None = None


class Telemetry:
    """The script of one pod's agent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: tuple[Step, ...] = ()
        self._since_s = clock.monotonic()

    def script(self, *steps: Step) -> None:
        """Play these steps from now on, one after another. No steps: tell the truth."""
        self._steps = steps
        self._since_s = self._clock.monotonic()

    def follow(self) -> None:
        """Tell the truth again."""
        self.script()

    def step(self) -> Step:
        """The step that holds now; an empty one when the truth is to be told."""
        elapsed_s = self._clock.monotonic() - self._since_s
        for step in self._steps:
            if step.for_s is None or elapsed_s < step.for_s:
                return step
            elapsed_s -= step.for_s
        return Step()

    def gpu_percent(self, queue: tuple[int, int] | None) -> float | None:
        step = self.step()
        if "gpu_percent" in step.model_fields_set:
            return step.gpu_percent
        return 100.0 if queue is not None and queue[0] > 0 else 0.0

    def message(
        self,
        *,
        queue: tuple[int, int] | None,
        uptime_s: float,
        gpu_names: list[str],
        gpu_memory_bytes: int,
    ) -> dict[str, Any]:
        """The agent's JSON. `queue` is (running, pending) of ComfyUI, None where it does not answer."""
        step = self.step()
        busy = queue is not None and queue[0] > 0
        comfyui: dict[str, int] | None = None
        if step.comfyui_answers is not False and (queue is not None or step.comfyui_answers):
            running, pending = queue or (0, 0)
            comfyui = {
                "queue_running": running if step.queue_running is None else step.queue_running,
                "queue_pending": pending if step.queue_pending is None else step.queue_pending,
            }
        return {
            "timestamp": self._clock.time(),
            "uptime_s": uptime_s,
            "gpus": [
                {
                    "index": index,
                    "name": name,
                    "utilization_percent": self.gpu_percent(queue),
                    "memory_used_bytes": (8 if busy else 1) * GIB,
                    "memory_total_bytes": gpu_memory_bytes,
                    "temperature_celsius": 66.0 if busy else 40.0,
                    "power_watts": 300.0 if busy else 60.0,
                }
                for index, name in enumerate(gpu_names)
            ],
            "cpu_percent": 35.0 if busy else 3.0,
            "memory_used_bytes": 4 * GIB,
            "memory_total_bytes": 64 * GIB,
            "disk_used_bytes": 20 * GIB,
            "disk_total_bytes": 50 * GIB,
            "comfyui": comfyui,
            "model_sync": (step.model_sync or ModelSync()).model_dump(),
        }
