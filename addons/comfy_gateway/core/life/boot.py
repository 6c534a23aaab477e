"""How long may a pod take to start? Longer while it visibly makes progress, but not for ever, and less on a bad host.

What can be seen from outside:

* model_sync: as long as it fetches bytes the deadline moves;
* the container: that it runs at last means that the image was fetched, and what is in it gets a while of its own.
  Once only, or a container that crashes and is started again would be waited for;
* the machine: a pod that the cloud has put on none for minutes never starts.
"""

from dataclasses import dataclass

from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.ports import CloudPod


@dataclass(frozen=True, slots=True)
class BootLimits:
    """Seconds since the order."""

    timeout_s: float
    """A pod that shows no progress is given up after so long."""
    most_s: float
    """No progress saves a pod that is older than this."""
    stall_s: float
    """Progress that is older than this is none."""
    container_s: float = 0.0
    """What a container that has come up late gets for the rest of its start."""
    no_machine_s: float = 0.0
    """A pod that is on no machine for so long is given up; 0: it is waited for like any other."""


class BootWatch:
    """Follows one starting pod."""

    def __init__(self, limits: BootLimits) -> None:
        self._limits = limits
        self._synced_bytes: int | None = None
        self._progress_until_s = 0.0
        """Age up to which the last progress counts."""
        self._was_up = False
        self._view: CloudPod | None = None
        self._unplaced: tuple[float, float] | None = None
        """Ages at the first and the last sight without a machine, and without another in between."""
        self.is_syncing = False
        """Whether the last sample told of a running model_sync."""

    def observe(self, sample: Sample | None, age_s: float) -> None:
        """Take in one sample, or None where the agent gave none, of a pod that was ordered ``age_s`` ago."""
        synced_bytes = None if sample is None else sample.synced_bytes
        self.is_syncing = synced_bytes is not None
        if synced_bytes is not None and synced_bytes != self._synced_bytes:
            self._progress_until_s = max(self._progress_until_s, age_s + self._limits.stall_s)
        self._synced_bytes = synced_bytes

    def see(self, view: CloudPod | None, age_s: float) -> None:
        """Take in what the cloud's last list says; None where it says nothing. The same view again is no news."""
        if view is None or view is self._view:
            return
        self._view = view
        if view.is_placed is False:
            self._unplaced = (age_s if self._unplaced is None else self._unplaced[0], age_s)
        else:
            self._unplaced = None
        if view.has_machine and not self._was_up:
            self._was_up = True
            self._progress_until_s = max(self._progress_until_s, age_s + self._limits.container_s)

    def overdue(self, age_s: float) -> str | None:
        """Why the pod is given up at this age, or None while it may go on."""
        if self._unplaced is not None and self._limits.no_machine_s:
            waited_s = self._unplaced[1] - self._unplaced[0]
            if waited_s >= self._limits.no_machine_s:
                return f"the cloud has put it on no machine for {waited_s:.0f} s"
        if age_s < self._limits.timeout_s:
            return None
        if age_s >= self._limits.most_s:
            return f"not ready {age_s:.0f} s after the order, which is the most"
        if age_s < self._progress_until_s:
            return None
        return f"not ready {age_s:.0f} s after the order"
