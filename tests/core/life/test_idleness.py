"""When a pod's time is up."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.life.idleness import IdleLimits, IdleWindow, PodUse, ends_in_s, judge
from comfy_gateway.core.life.telemetry import Sample

LIMITS = IdleLimits(idle_s=600, gpu_threshold_percent=5, silence_timeout_s=900, max_gap_s=100)
QUIET = Sample(0.0, 0, 0)
SILENT = None
UNUSED = PodUse(
    ready_since_s=0, last_activity_s=0, prompts_in_flight=0, transfers_in_flight=0, queue_remaining=0
)
MINUTES_11 = [(60.0 * minute, QUIET) for minute in range(12)]


def after(samples: Sequence[tuple[float, Sample | None]], limits: IdleLimits = LIMITS) -> IdleWindow:
    window = IdleWindow(limits)
    for at_s, sample in samples:
        window.observe(sample, at_s)
    return window


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (UNUSED, "idle for 660 s"),
        (replace(UNUSED, queue_remaining=None), "idle for 660 s"),
        (replace(UNUSED, last_activity_s=60), "idle for 600 s"),
    ],
    ids=["never used", "ComfyUI not asked", "used at the beginning"],
)
def test_a_full_quiet_window_is_over(use: PodUse, reason: str) -> None:
    verdict = judge(after(MINUTES_11), use, LIMITS, 660)
    assert (verdict.is_over, verdict.reason) == (True, reason)


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (replace(UNUSED, prompts_in_flight=2), "2 prompts in flight"),
        (replace(UNUSED, transfers_in_flight=1), "1 transfers in flight"),
        (replace(UNUSED, queue_remaining=3), "3 prompts in ComfyUI's queue"),
        (replace(UNUSED, copies_in_flight=4), "4 files are being copied"),
        (replace(UNUSED, kept_for_s=90), "kept for 90 s more"),
        (replace(UNUSED, lease_left_s=120), "idle for 660 s, and 120 s of its lease are left"),
        (replace(UNUSED, last_activity_s=61), "idle for 599 of 600 s"),
        (replace(UNUSED, last_activity_s=700), "idle for -40 of 600 s"),
    ],
    ids=[
        "prompt",
        "transfer",
        "queue",
        "copy",
        "kept",
        "its lease",
        "used just too late",
        "used while it was judged",
    ],
)
def test_use_keeps_a_pod_whatever_telemetry_says(use: PodUse, reason: str) -> None:
    verdict = judge(after(MINUTES_11), use, LIMITS, 660)
    assert (verdict.is_over, verdict.reason) == (False, reason)


@pytest.mark.parametrize(
    "sample",
    [
        None,
        Sample(None, 0, 0),
        Sample(0.0, None, 0),
        Sample(0.0, 0, None),
        Sample(5.1, 0, 0),
        Sample(0.0, 1, 0),
        Sample(0.0, 0, 1),
        Sample(0.0, 0, 0, synced_bytes=1),
    ],
    ids=[
        "no sample",
        "no utilisation",
        "running unknown",
        "pending unknown",
        "busy GPU",
        "running",
        "pending",
        "models on the way",
    ],
)
def test_one_sample_that_is_not_quiet_begins_the_window_anew(sample: Sample | None) -> None:
    samples = [*MINUTES_11[:6], (360.0, sample), *[(360.0 + 60 * minute, QUIET) for minute in range(1, 11)]]
    window = after(samples)
    assert window.quiet_since_s == 420
    assert not judge(window, UNUSED, LIMITS, 960).is_over
    window.observe(QUIET, 1020)
    assert judge(window, UNUSED, LIMITS, 1020).is_over


def test_a_sync_that_stands_still_does_not_keep_a_pod() -> None:
    stuck = Sample(0.0, 0, 0, synced_bytes=5)
    window = after([(0, stuck), (60, stuck), (120, stuck)])
    assert window.quiet_since_s == 60
    window.observe(Sample(0.0, 0, 0, synced_bytes=6), 180)
    assert window.quiet_since_s is None


def test_utilisation_at_the_threshold_is_quiet() -> None:
    assert after([(0, Sample(5.0, 0, 0))]).quiet_since_s == 0


def test_a_gap_between_samples_begins_the_window_anew() -> None:
    window = after([*MINUTES_11, (761.0, QUIET)])
    assert window.quiet_since_s == 761
    assert after([*MINUTES_11, (760.0, QUIET)]).quiet_since_s == 0


def test_samples_that_are_too_old_prove_nothing() -> None:
    assert judge(after(MINUTES_11), UNUSED, LIMITS, 760).is_over
    verdict = judge(after(MINUTES_11), UNUSED, LIMITS, 761)
    assert (verdict.is_over, verdict.reason) == (False, "busy")


@pytest.mark.parametrize(
    ("samples", "use", "now_s", "is_over"),
    [
        ([], UNUSED, 899, False),
        ([], UNUSED, 900, True),
        ([(0.0, SILENT), (800.0, SILENT)], UNUSED, 900, True),
        ([], replace(UNUSED, last_activity_s=100), 999, False),
        ([], replace(UNUSED, last_activity_s=100), 1000, True),
        ([(50.0, QUIET)], UNUSED, 949, False),
        ([(50.0, QUIET)], UNUSED, 950, True),
        ([(50.0, Sample(99.0, 0, 0))], UNUSED, 950, True),
        ([(850.0, Sample(99.0, 0, 0))], UNUSED, 1000, False),
        ([], replace(UNUSED, queue_remaining=1), 9000, False),
        ([], replace(UNUSED, prompts_in_flight=1), 9000, False),
        ([], replace(UNUSED, transfers_in_flight=1), 9000, False),
    ],
    ids=[
        "not yet",
        "never heard",
        "never answered",
        "used since",
        "used and then not",
        "silent since a sample, not yet",
        "silent since a sample",
        "silent since a busy sample",
        "busy until just now",
        "ComfyUI is busy",
        "prompt in flight",
        "transfer in flight",
    ],
)
def test_silence_ends_a_pod_after_its_bound(
    samples: list[tuple[float, Sample | None]], use: PodUse, now_s: float, is_over: bool
) -> None:
    assert judge(after(samples), use, LIMITS, now_s).is_over is is_over


def test_the_reason_tells_silence_from_work() -> None:
    assert judge(after([]), UNUSED, LIMITS, 10).reason == "no telemetry yet"
    assert judge(after([]), UNUSED, LIMITS, 900).reason == "no telemetry and no work for 900 s"
    assert judge(after([(10, Sample(50.0, 0, 0))]), UNUSED, LIMITS, 10).reason == "busy"


# -- whatever comes

READINGS = st.one_of(
    st.none(),
    st.just(QUIET),
    st.builds(
        Sample,
        st.sampled_from([None, 0.0, 5.0, 5.5, 100.0]),
        st.sampled_from([None, 0, 1]),
        st.sampled_from([None, 0, 2]),
        st.none(),
    ),
)
POLLS = st.lists(st.tuples(st.sampled_from([1.0, 30.0, 60.0, 99.0, 101.0, 500.0]), READINGS), max_size=40)


def is_quiet(sample: Sample | None) -> bool:
    return (
        sample is not None
        and sample.utilization_percent is not None
        and sample.utilization_percent <= LIMITS.gpu_threshold_percent
        and sample.queue_running == sample.queue_pending == 0
    )


def at_times(polls: list[tuple[float, Sample | None]]) -> list[tuple[float, Sample | None]]:
    now_s, timed = 0.0, []
    for gap_s, sample in polls:
        now_s += gap_s
        timed.append((now_s, sample))
    return timed


@given(
    POLLS,
    st.sampled_from(
        [
            {"prompts_in_flight": 1},
            {"transfers_in_flight": 2},
            {"queue_remaining": 1},
            {"copies_in_flight": 1},
        ]
    ),
    st.floats(0, 10_000),
)
def test_never_over_while_something_is_there(
    polls: list[tuple[float, Sample | None]], there: dict[str, int], later_s: float
) -> None:
    timed = at_times(polls)
    now_s = (timed[-1][0] if timed else 0.0) + later_s
    assert not judge(after(timed), replace(UNUSED, **there), LIMITS, now_s).is_over


@given(POLLS, st.sampled_from([0.0, 1.0, 99.0, 101.0, 400.0]), st.sampled_from([0.0, 300.0, 1500.0]))
def test_over_only_by_an_unbroken_window_or_by_silence(
    polls: list[tuple[float, Sample | None]], later_s: float, last_activity_s: float
) -> None:
    timed = at_times(polls)
    now_s = (timed[-1][0] if timed else 0.0) + later_s
    use = replace(UNUSED, last_activity_s=last_activity_s)
    if not judge(after(timed), use, LIMITS, now_s).is_over:
        return
    usable = [at_s for at_s, sample in timed if sample and sample.utilization_percent is not None
              and sample.queue_running is not None and sample.queue_pending is not None]  # fmt: skip
    is_silent = now_s - max([*usable[-1:], last_activity_s]) >= LIMITS.silence_timeout_s
    # The window must be covered by quiet samples alone, with no gap between them, before the first or after the last.
    inside = [(at_s, sample) for at_s, sample in timed if at_s >= now_s - LIMITS.idle_s]
    begun = [(at_s, sample) for at_s, sample in timed if at_s <= now_s - LIMITS.idle_s][-1:]
    covered = [*begun, *inside]
    edges = [at_s for at_s, _ in covered] + [now_s]
    is_unbroken = (
        bool(begun)
        and all(is_quiet(sample) for _, sample in covered)
        and all(later - earlier <= LIMITS.max_gap_s for earlier, later in pairwise(edges))
        and now_s - last_activity_s >= LIMITS.idle_s
    )
    assert is_unbroken or is_silent


@given(POLLS)
def test_silence_always_comes_to_an_end(polls: list[tuple[float, Sample | None]]) -> None:
    timed = at_times(polls)
    end_s = timed[-1][0] if timed else 0.0
    assert judge(after(timed), UNUSED, LIMITS, end_s + LIMITS.silence_timeout_s).is_over


@pytest.mark.parametrize(
    ("samples", "use", "left_s"),
    [
        (MINUTES_11[:6], UNUSED, 290.0),
        (MINUTES_11[:6], replace(UNUSED, last_activity_s=200), 490.0),
        (MINUTES_11[:6], replace(UNUSED, kept_for_s=1000), 1000.0),
        (MINUTES_11[:6], replace(UNUSED, kept_for_s=5), 290.0),
        (MINUTES_11[:6], replace(UNUSED, lease_left_s=1000), 1000.0),
        ([], replace(UNUSED, lease_left_s=1000), 590.0),
        (MINUTES_11[:6], replace(UNUSED, prompts_in_flight=1), None),
        ([(300, Sample(50.0, 0, 0))], UNUSED, None),
        ([], UNUSED, 590.0),
        ([(60, QUIET)], UNUSED, 650.0),
    ],
    ids=[
        "quiet",
        "used since",
        "kept",
        "kept too short",
        "its lease",
        "silence heeds no lease",
        "busy",
        "busy GPU",
        "never heard",
        "fell silent",
    ],
)
def test_the_end_of_an_idle_pod_can_be_told_beforehand(
    samples: Sequence[tuple[float, Sample | None]], use: PodUse, left_s: float | None
) -> None:
    assert ends_in_s(after(samples), use, LIMITS, 310) == left_s


@given(
    st.lists(st.sampled_from([QUIET, SILENT, Sample(50.0, 0, 0), Sample(0.0, 1, 0)]), max_size=20),
    st.integers(0, 1200),
    st.sampled_from([0.0, 50.0]),
    st.sampled_from([0.0, 50.0]),
    st.integers(0, 1),
)
def test_an_end_that_has_come_is_the_verdicts(
    samples: list[Sample | None], last_activity_s: int, kept_for_s: float, lease_left_s: float, prompts: int
) -> None:
    window = after([(60.0 * number, sample) for number, sample in enumerate(samples)])
    now_s = 60.0 * len(samples) + 30
    use = replace(
        UNUSED,
        last_activity_s=last_activity_s,
        kept_for_s=kept_for_s,
        lease_left_s=lease_left_s,
        prompts_in_flight=prompts,
    )
    is_over = judge(window, use, LIMITS, now_s).is_over
    assert is_over == (ends_in_s(window, use, LIMITS, now_s) == 0)
