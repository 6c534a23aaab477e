"""When a pod that nobody asks after any more ends itself: the rule, without a clock and without I/O."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """Whether the pod goes on, and why."""

    HELD = "the gateway asked within the lease"
    BOOTING = "the gateway has not asked yet, and the boot grace lasts"
    BUSY = "the lease ran out, but ComfyUI works"
    SILENT_QUEUE = "the lease ran out, but ComfyUI was heard a short while ago and may be busy"
    UNFETCHED = "the lease ran out, but there are files that nobody fetched"
    END = "the lease ran out and nothing is left to do"
    END_AT_LAST = "the lease ran out and so did the longest delay"

    @property
    def is_end(self) -> bool:
        return self in (Verdict.END, Verdict.END_AT_LAST)


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds.

    lease_s          from the last renewal
    boot_grace_s     from the agent's start while nobody has renewed
    hard_max_s       from the last renewal or the start: then neither work nor files delay the end
    queue_silence_s  how long a ComfyUI that does not answer is taken for busy
    """

    lease_s: float
    boot_grace_s: float
    hard_max_s: float
    queue_silence_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Times are seconds of one monotonic clock.

    queue_length     None: ComfyUI does not answer
    queue_heard_s    when it last did; None: never
    unfetched_files  None: cannot be told
    """

    now_s: float
    started_s: float
    renewed_s: float | None
    queue_length: int | None
    queue_heard_s: float | None
    unfetched_files: int | None


def ran_out(facts: Facts, terms: Terms) -> bool:
    """Whether nobody asked for too long."""
    if facts.renewed_s is None:
        return facts.now_s - facts.started_s >= terms.boot_grace_s
    return facts.now_s - facts.renewed_s >= terms.lease_s


def decide(facts: Facts, terms: Terms) -> Verdict:
    """What to do now. Any renewal leads back to HELD, also after an END that did not succeed."""
    if not ran_out(facts, terms):
        return Verdict.BOOTING if facts.renewed_s is None else Verdict.HELD
    alone_since_s = facts.started_s if facts.renewed_s is None else facts.renewed_s
    if facts.now_s - alone_since_s >= terms.hard_max_s:
        return Verdict.END_AT_LAST
    if facts.queue_length is None:
        heard_s = facts.started_s if facts.queue_heard_s is None else facts.queue_heard_s
        if facts.now_s - heard_s < terms.queue_silence_s:
            return Verdict.SILENT_QUEUE
    elif facts.queue_length > 0:
        return Verdict.BUSY
    if facts.unfetched_files is None or facts.unfetched_files > 0:
        return Verdict.UNFETCHED
    return Verdict.END
