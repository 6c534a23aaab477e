"""When is a private pod idle? A missing reading is never an idle one.

Two ways to the end of a pod:

* telemetry: every sample of a full window was at or under the threshold with an empty queue, without a gap;
* silence: no usable sample for ``silence_timeout_s`` (an image without an agent, or one that broke), and no prompt
  and no transfer for as long. It exists so that a pod whose agent never speaks does not cost money for ever.

Neither counts while a prompt or a transfer of the user is in flight, ComfyUI's queue is not empty, or files are being
copied from the pod.
"""

from dataclasses import dataclass

from comfy_gateway.core.life.telemetry import Sample


@dataclass(frozen=True, slots=True)
class IdleLimits:
    """The settings that decide, in seconds and percent."""

    idle_s: float
    gpu_threshold_percent: float
    silence_timeout_s: float
    max_gap_s: float
    """Two samples further apart than this are a gap, and the window begins anew after it."""


class IdleWindow:
    """How long the samples of one pod have been quiet without a gap."""

    def __init__(self, limits: IdleLimits) -> None:
        self._limits = limits
        self.quiet_since_s: float | None = None
        """Monotonic time of the first sample of the unbroken quiet run, or None when the last one was not quiet."""
        self.last_usable_s: float | None = None
        """Monotonic time of the last sample that told utilisation and queue, or None if there was none."""
        self._synced_bytes: int | None = None

    def observe(self, sample: Sample | None, now_s: float) -> None:
        """Take in one poll; None and a sample that lacks a reading end the quiet run."""
        if sample is None or sample.utilization_percent is None or sample.is_queue_empty is None:
            self.quiet_since_s = None
            return
        had_gap = self.last_usable_s is None or now_s - self.last_usable_s > self._limits.max_gap_s
        self.last_usable_s = now_s
        # A sync that fetches nothing more is stuck, and no reason to keep a pod.
        is_syncing = sample.synced_bytes is not None and sample.synced_bytes != self._synced_bytes
        self._synced_bytes = sample.synced_bytes
        is_quiet = (
            sample.utilization_percent <= self._limits.gpu_threshold_percent
            and sample.is_queue_empty
            and not is_syncing
        )
        if not is_quiet:
            self.quiet_since_s = None
        elif self.quiet_since_s is None or had_gap:
            self.quiet_since_s = now_s


@dataclass(frozen=True, slots=True)
class PodUse:
    """What the gateway itself knows of a pod's use. Times are monotonic seconds."""

    ready_since_s: float
    last_activity_s: float
    """End of the last prompt or transfer, or when the pod became ready."""
    prompts_in_flight: int
    transfers_in_flight: int
    queue_remaining: int | None
    """ComfyUI's own answer just now; None when it did not answer or was not asked."""
    copies_in_flight: int = 0
    """Files that are on their way into the vault. No use of the pod: when they are done, it has been idle all along."""
    kept_for_s: float = 0.0
    """How much longer somebody wants it kept although it is idle."""
    lease_left_s: float = 0.0
    """Until it is as old as a pod has to be before idleness alone ends it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the pod's time is up, and why or why not, in words for the log."""

    is_over: bool
    reason: str
    is_silence: bool = False
    """Over since nothing was heard of it, which somebody should look into."""


def judge(window: IdleWindow, use: PodUse, limits: IdleLimits, now_s: float) -> Verdict:
    """Decide about one pod at a monotonic time."""
    if use.prompts_in_flight:
        return Verdict(False, f"{use.prompts_in_flight} prompts in flight")
    if use.transfers_in_flight:
        return Verdict(False, f"{use.transfers_in_flight} transfers in flight")
    if use.queue_remaining:
        return Verdict(False, f"{use.queue_remaining} prompts in ComfyUI's queue")
    if use.copies_in_flight:
        return Verdict(False, f"{use.copies_in_flight} files are being copied")
    if use.kept_for_s > 0:
        return Verdict(False, f"kept for {use.kept_for_s:.0f} s more")
    heard_s = window.last_usable_s
    if window.quiet_since_s is not None and heard_s is not None and now_s - heard_s <= limits.max_gap_s:
        # A prompt that came and went between two samples is activity all the same.
        quiet_s = now_s - max(window.quiet_since_s, use.last_activity_s)
        if quiet_s >= limits.idle_s:
            if use.lease_left_s > 0:
                return Verdict(
                    False, f"idle for {quiet_s:.0f} s, and {use.lease_left_s:.0f} s of its lease are left"
                )
            return Verdict(True, f"idle for {quiet_s:.0f} s")
        return Verdict(False, f"idle for {quiet_s:.0f} of {limits.idle_s:.0f} s")
    silent_s = now_s - max(use.ready_since_s if heard_s is None else heard_s, use.last_activity_s)
    if silent_s >= limits.silence_timeout_s:
        return Verdict(True, f"no telemetry and no work for {silent_s:.0f} s", is_silence=True)
    return Verdict(False, "busy" if heard_s is not None else "no telemetry yet")


def ends_in_s(window: IdleWindow, use: PodUse, limits: IdleLimits, now_s: float) -> float | None:
    """In how many seconds ``judge`` would end the pod if nothing more were done on it; None while it is busy."""
    if use.prompts_in_flight or use.transfers_in_flight or use.queue_remaining or use.copies_in_flight:
        return None
    heard_s = window.last_usable_s
    if heard_s is not None and now_s - heard_s <= limits.max_gap_s:
        if window.quiet_since_s is None:
            return None
        left_s = max(
            limits.idle_s - (now_s - max(window.quiet_since_s, use.last_activity_s)), use.lease_left_s
        )
    else:
        since_s = max(use.ready_since_s if heard_s is None else heard_s, use.last_activity_s)
        left_s = limits.silence_timeout_s - (now_s - since_s)
    return max(left_s, use.kept_for_s, 0.0)
