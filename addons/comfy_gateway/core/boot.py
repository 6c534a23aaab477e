"""How long may a pod take to start? Longer while it visibly makes progress, but not for ever.

What can be seen from outside is model_sync: as long as it fetches bytes the deadline moves, up to a bound.
"""

from dataclasses import dataclass

from comfy_gateway.core.telemetry import Sample


@dataclass(frozen=True, slots=True)
class BootLimits:
    """Seconds since the order."""

    timeout_s: float
    """A pod that shows no progress is given up after so long."""
    most_s: float
    """No progress saves a pod that is older than this."""
    stall_s: float
    """Progress that is older than this is none."""


class BootWatch:
    """Follows one starting pod."""

    def __init__(self, limits: BootLimits) -> None:
        self._limits = limits
        self._synced_bytes: int | None = None
        self._progress_at_s: float | None = None
        self.is_syncing = False
        """Whether the last sample told of a running model_sync."""

    def observe(self, sample: Sample | None, age_s: float) -> None:
        """Take in one sample, or None where the agent gave none, of a pod that was ordered ``age_s`` ago."""
        synced_bytes = None if sample is None else sample.synced_bytes
        self.is_syncing = synced_bytes is not None
        if synced_bytes is not None and synced_bytes != self._synced_bytes:
            self._progress_at_s = age_s
        self._synced_bytes = synced_bytes

    def overdue(self, age_s: float) -> str | None:
        """Why the pod is given up at this age, or None while it may go on."""
        if age_s < self._limits.timeout_s:
            return None
        if age_s >= self._limits.most_s:
            return f"not ready {age_s:.0f} s after the order, which is the most"
        if self._progress_at_s is not None and age_s - self._progress_at_s < self._limits.stall_s:
            return None
        return f"not ready {age_s:.0f} s after the order"
