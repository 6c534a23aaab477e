"""The rolling window, against a model that keeps everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.life.window import PromptWindow

GAPS = st.lists(
    st.floats(min_value=0, max_value=100, allow_nan=False).map(lambda gap: round(gap, 1)), max_size=60
)


@given(count=st.integers(0, 8), window_s=st.sampled_from([1.0, 10.0, 60.0]), gaps=GAPS)
def test_a_burst_is_so_many_prompts_within_the_window(count: int, window_s: float, gaps: list[float]) -> None:
    window = PromptWindow(count, window_s)
    times: list[float] = []
    now_s = 1000.0
    for gap_s in gaps:
        now_s += gap_s
        times.append(now_s)
        within = sum(1 for time in times if now_s - time <= window_s)
        assert window.add(now_s) == (within >= count)
        assert window.count_at(now_s) == min(within, max(count, 1))


@pytest.mark.parametrize(
    ("times", "bursts"),
    [
        ([0, 1, 2, 3, 4], [False, False, False, False, True]),
        ([0, 15, 30, 45, 60], [False, False, False, False, True]),
        ([0, 15, 30, 45, 60.1], [False, False, False, False, False]),
        ([0, 0, 0, 0, 0, 0], [False, False, False, False, True, True]),
        ([0, 1, 2, 3, 100, 101, 102, 103, 104], [False] * 8 + [True]),
    ],
    ids=["at once", "in exactly the window", "just outside", "together", "not the fifth ever"],
)
def test_five_within_a_minute(times: list[float], bursts: list[bool]) -> None:
    window = PromptWindow(5, 60)
    assert [window.add(time) for time in times] == bursts


def test_a_count_of_zero_makes_every_prompt_a_burst() -> None:
    window = PromptWindow(0, 60)
    assert [window.add(time) for time in (0, 1000)] == [True, True]


def test_prompts_leave_the_count_as_time_goes_on() -> None:
    window = PromptWindow(5, 60)
    window.add(0)
    window.add(30)
    assert [window.count_at(now_s) for now_s in (30, 60, 61, 90, 91)] == [2, 2, 1, 1, 0]
