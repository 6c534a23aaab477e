"""How long a pod may take to start."""

import pytest

from comfy_gateway.core.life.boot import BootLimits, BootWatch
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.ports import CloudPod

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


def view(*, is_up: bool = False, is_placed: bool | None = True) -> CloudPod:
    return CloudPod("pod1", "comfy-gw-a-b", True, is_up, 0.5, "RTX 4090", is_placed=is_placed)


SLOW = BootLimits(timeout_s=360, most_s=600, stall_s=90, container_s=180, no_machine_s=150)


@pytest.mark.parametrize(
    ("views", "age_s", "is_overdue"),
    [
        ([], 360, True),
        ([(350, {})], 360, True),
        ([(350, {"is_up": True})], 360, False),
        ([(350, {"is_up": True})], 529, False),
        ([(350, {"is_up": True})], 530, True),
        ([(350, {"is_up": True}), (500, {}), (515, {"is_up": True})], 530, True),
        ([(500, {"is_up": True})], 599, False),
        ([(500, {"is_up": True})], 600, True),
        ([(20, {"is_up": True})], 360, True),
        ([(10, {"is_placed": False}), (155, {"is_placed": False})], 155, False),
        ([(10, {"is_placed": False}), (160, {"is_placed": False})], 160, True),
        ([(10, {"is_placed": False}), (100, {}), (160, {"is_placed": False})], 165, False),
        ([(10, {"is_placed": False}), (100, {"is_placed": None}), (160, {"is_placed": False})], 165, False),
        ([(10, {"is_placed": False}), (100, None), (160, {"is_placed": False})], 165, True),
        ([(10, {"is_placed": False}), (100, None)], 165, False),
    ],
    ids=[
        "nothing is seen",
        "it is on a machine, and no more",
        "its container has just come up",
        "its container has a while",
        "its container had its while",
        "a container that crashes gets no second while",
        "almost the most",
        "the most",
        "it came up early",
        "no machine for almost too long",
        "no machine for too long",
        "it had one in between",
        "it may have had one in between",
        "a list that failed says nothing",
        "a machine that was missed once",
    ],
)
def test_what_the_cloud_shows_moves_the_deadline_to_either_side(
    views: list[tuple[float, dict[str, bool] | None]], age_s: float, is_overdue: bool
) -> None:
    watch = BootWatch(SLOW)
    for at_s, told in views:
        watch.see(None if told is None else view(**told), at_s)
    assert (watch.overdue(age_s) is not None) is is_overdue


def test_the_same_list_looked_at_again_is_no_second_sight() -> None:
    watch = BootWatch(SLOW)
    once = view(is_placed=False)
    watch.see(once, 10)
    watch.see(once, 300)
    assert watch.overdue(300) is None


def test_without_that_bound_a_pod_on_no_machine_has_its_whole_time() -> None:
    watch = BootWatch(LIMITS)
    watch.see(view(is_placed=False), 10)
    watch.see(view(is_placed=False), 350)
    assert watch.overdue(359) is None
