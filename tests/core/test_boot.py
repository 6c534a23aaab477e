"""How long a pod may take to start."""

import pytest

from comfy_gateway.core.boot import BootLimits, BootWatch
from comfy_gateway.core.telemetry import Sample

LIMITS = BootLimits(timeout_s=360, most_s=3600, stall_s=90)


def syncing(done_bytes: int) -> Sample:
    return Sample(0.0, 0, 0, synced_bytes=done_bytes)


@pytest.mark.parametrize(
    ("samples", "age_s", "is_overdue"),
    [
        ([], 359, False),
        ([], 360, True),
        ([(300, None)], 360, True),
        ([(300, Sample(0.0, 0, 0))], 360, True),
        ([(300, syncing(1))], 360, False),
        ([(300, syncing(1)), (350, syncing(2))], 400, False),
        ([(300, syncing(1)), (350, syncing(1))], 389, False),
        ([(300, syncing(1)), (350, syncing(1))], 390, True),
        ([(3590, syncing(1))], 3599, False),
        ([(3590, syncing(1))], 3600, True),
    ],
    ids=[
        "young",
        "old",
        "no agent",
        "no sync",
        "sync has begun",
        "sync goes on",
        "sync has just stopped",
        "sync is stuck",
        "almost the most",
        "the most",
    ],
)
def test_visible_progress_moves_the_deadline_up_to_a_bound(
    samples: list[tuple[float, Sample | None]], age_s: float, is_overdue: bool
) -> None:
    watch = BootWatch(LIMITS)
    for at_s, sample in samples:
        watch.observe(sample, at_s)
    assert (watch.overdue(age_s) is not None) is is_overdue


def test_the_last_sample_tells_whether_models_are_being_fetched() -> None:
    watch = BootWatch(LIMITS)
    assert not watch.is_syncing
    watch.observe(syncing(0), 1)
    assert watch.is_syncing
    watch.observe(Sample(0.0, 0, 0), 2)
    assert not watch.is_syncing
