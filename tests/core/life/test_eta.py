"""How long a pod will take, from those that came before."""

from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.life.eta import FEW, Eta, Start, estimate


def starts(gpu_type: str | None, *seconds: float) -> list[Start]:
    return [Start(gpu_type, took_s) for took_s in seconds]


def test_half_and_nine_of_ten_of_the_starts_of_that_gpu_type() -> None:
    known = starts("4090", *range(10, 120, 10)) + starts("A100", 900, 900, 900, 900, 900)
    assert estimate(known, "4090") == Eta(60.0, 100.0)
    assert estimate(known, "A100") == Eta(900.0, 900.0)


def test_few_of_a_type_are_told_by_all_types() -> None:
    known = starts("4090", 100, 100, 100, 100) + starts("A100", 300)
    assert estimate(known, "A100") == Eta(100.0, 220.0)
    assert estimate(known, None) == estimate(known, "A100")


def test_too_few_of_all_tell_nothing() -> None:
    assert estimate(starts("4090", *[100.0] * (FEW - 1)), "4090") is None
    assert estimate([], None) is None


def test_a_late_pod_is_compared_with_late_ones() -> None:
    known = starts("4090", 60, 60, 60, 60, 200)
    assert estimate(known, "4090", age_s=50) == Eta(10.0, 94.0)
    assert estimate(known, "4090", age_s=100) == Eta(100.0, 100.0)
    assert estimate(known, "4090", age_s=200) is None


@given(st.lists(st.floats(0.1, 3600), min_size=FEW, max_size=30), st.floats(0, 4000))
def test_what_is_told_lies_ahead_and_in_order(seconds: list[float], age_s: float) -> None:
    eta = estimate(starts("4090", *seconds), "4090", age_s=age_s)
    if eta is not None:
        assert 0 < eta.p50 <= eta.p90 * 1.000001
        assert eta.p90 <= max(seconds) - age_s + 0.001
