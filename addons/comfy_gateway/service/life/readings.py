"""What agents told of their pods during the last hour."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.ports import Clock

KEPT: Final = timedelta(hours=1)
MOST: Final = 720
"""Of one pod: every five seconds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample. None for what could not be read."""

    at: datetime
    utilization_percent: float | None
    queue: int | None
    """Prompts that run or wait in the pod's ComfyUI."""


class Readings:
    """By pod name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, deque[Reading]] = {}

    def note(self, pod_name: str, sample: Sample | None) -> None:
        """A poll has ended; None where the agent gave nothing."""
        queue = None
        if sample is not None and sample.queue_running is not None and sample.queue_pending is not None:
            queue = sample.queue_running + sample.queue_pending
        utilization_percent = None if sample is None else sample.utilization_percent
        kept = self._kept.setdefault(pod_name, deque(maxlen=MOST))
        now = self._clock.now()
        kept.append(Reading(now, utilization_percent, queue))
        while kept[0].at < now - KEPT:
            kept.popleft()

    def last(self, pod_name: str) -> Reading | None:
        """The newest, or None."""
        kept = self._kept.get(pod_name)
        return kept[-1] if kept else None

    def of(self, pod_name: str) -> Sequence[Reading]:
        """Oldest first."""
        return tuple(self._kept.get(pod_name, ()))

    def forget(self, pod_name: str) -> None:
        """The pod has ended."""
        self._kept.pop(pod_name, None)
