"""How long prompts wait."""

import pytest

from comfy_gateway.core.prompts.waiting import LAST, Pace, predicted_wait_s


@pytest.mark.parametrize(
    ("runs_s", "usual_s"),
    [([], None), ([10, 10], None), ([10, 12, 300], 12), ([1] * LAST + [9] * 20, 9), ([-5, -5, -5], 0)],
    ids=[
        "nothing ran",
        "too few ran",
        "one long one says nothing",
        "old ones are forgotten",
        "the clock was set back",
    ],
)
def test_the_usual_run_is_the_median_of_the_last(runs_s: list[float], usual_s: float | None) -> None:
    pace = Pace()
    for run_s in runs_s:
        pace.ran(run_s)
    assert pace.usual_s == usual_s


@pytest.mark.parametrize(
    ("ahead", "wait_s"),
    [([], 0), ([0, 0, 0], 30), ([4, 0], 16), ([25, 0], 10)],
    ids=["nobody", "three wait", "one has run for a while", "one is overdue"],
)
def test_a_prompt_waits_for_what_is_left_of_those_before_it(ahead: list[float], wait_s: float) -> None:
    assert predicted_wait_s(10, ahead) == wait_s
