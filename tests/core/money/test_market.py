"""Where to buy, and whether at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.life.session import State
from comfy_gateway.core.money import market
from comfy_gateway.core.money.market import Breaker, Market, MarketLimits, Place
from comfy_gateway.core.ports import Candidate

A, B, C = (
    Candidate("RTX 4090", "SECURE"),
    Candidate("RTX 4090", "SECURE", "EU-RO-1"),
    Candidate("A100", "SECURE"),
)
LIMITS = MarketLimits(
    refusal_memory_s=30,
    distrust_s=900,
    max_attempts=10,
    max_starting=3,
    breaker_failures=3,
    breaker_open_s=300,
)


@pytest.mark.parametrize(("after_s", "is_asked"), [(0, False), (29.9, False), (30, True)])
def test_a_place_that_refused_is_not_asked_again_for_a_while(after_s: float, is_asked: bool) -> None:
    remembering = Market(LIMITS)
    remembering.refused(A, 100)
    assert (remembering.remembered_refusal(A, 100 + after_s) is None) is is_asked
    assert remembering.remembered_refusal(B, 100 + after_s) is None


def test_a_place_is_the_same_whatever_it_may_cost_there() -> None:
    assert Place.of(B) == ("RTX 4090", "SECURE", "EU-RO-1")


def test_a_place_in_which_a_pod_failed_to_start_is_asked_last() -> None:
    learning = Market(LIMITS)
    learning.rented("pod", A)
    learning.failed("pod", 100)
    assert learning.ordered([A, B, C], 101) == [B, C, A]
    assert learning.ordered([A], 101) == [A]
    assert learning.ordered([A, B, C], 1000) == [A, B, C]


def test_a_pod_that_serves_gives_its_place_back_its_turn() -> None:
    learning = Market(LIMITS)
    learning.rented("bad", A)
    learning.failed("bad", 100)
    learning.rented("good", A)
    learning.served("good")
    assert learning.ordered([A, B], 101) == [A, B]


def test_a_failure_of_a_pod_from_before_the_restart_blames_no_place() -> None:
    learning = Market(LIMITS)
    learning.failed("unknown", 100)
    assert learning.ordered([A, B], 100) == [A, B]


def test_no_more_than_so_many_pods_start_at_one_time() -> None:
    free = Market(LIMITS)
    assert free.why_not(starting=2, now_s=0) is None
    assert free.why_not(starting=3, now_s=0) == "3 pods are starting and RUNPOD_MAX_STARTING is 3"
    assert Market(MarketLimits(max_starting=0)).why_not(starting=10_000, now_s=0) is None


def test_failures_in_a_row_stop_all_buying_and_one_success_allows_it_again() -> None:
    buying = Market(LIMITS)
    assert [buying.failed(str(number), 100) for number in range(3)] == [
        None, None, "3 starts in a row have failed; no pod is bought for 300 s",
    ]  # fmt: skip
    assert buying.breaker(399) is Breaker.OPEN
    assert (
        buying.why_not(starting=0, now_s=150) == "3 starts in a row have failed, nothing is bought for 250 s"
    )
    assert buying.why_not(starting=0, now_s=400) is None
    assert buying.breaker(400) is Breaker.HALF_OPEN
    assert buying.why_not(starting=1, now_s=400) == "3 starts in a row have failed, and one is being tried"
    buying.served("the one")
    assert buying.breaker(400) is Breaker.CLOSED
    assert buying.why_not(starting=1, now_s=400) is None


def test_a_trial_that_fails_closes_the_shop_for_as_long_again() -> None:
    buying = Market(LIMITS)
    for number in range(3):
        buying.failed(str(number), 100)
    assert buying.failed("begun before", 200) is None
    assert buying.breaker(400) is Breaker.HALF_OPEN
    assert buying.failed("the trial", 450) is not None
    assert buying.breaker(749) is Breaker.OPEN
    assert buying.breaker(750) is Breaker.HALF_OPEN


def test_without_a_breaker_failures_stop_nobody() -> None:
    buying = Market(MarketLimits(breaker_failures=0))
    assert not any(buying.failed(str(number), 0) for number in range(100))
    assert buying.breaker(0) is Breaker.CLOSED


def test_what_is_remembered_is_bounded() -> None:
    learning = Market(LIMITS)
    learning.rented("first", A)
    for number in range(10_000):
        learning.rented(str(number), C)
    learning.failed("first", 0)
    assert learning.ordered([A, C], 0) == [A, C]


def test_sessions_whose_pod_is_on_its_way_are_starting() -> None:
    assert market.starting(list(State)) == 4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["refused", "failed", "served"]), st.sampled_from([A, B, C]), st.integers(0, 400)
        ),
        max_size=40,
    )
)
def test_whatever_happens_nothing_is_lost_and_the_shop_opens_again(
    deeds: list[tuple[str, Candidate, int]],
) -> None:
    """No candidate is ever left out for good, and a breaker never stays open."""
    lived = Market(LIMITS)
    now_s = 0.0
    for number, (deed, candidate, wait_s) in enumerate(deeds):
        now_s += wait_s
        if deed == "refused":
            lived.refused(candidate, now_s)
        else:
            lived.rented(str(number), candidate)
            lived.failed(str(number), now_s) if deed == "failed" else lived.served(str(number))
        assert sorted(map(str, lived.ordered([A, B, C], now_s))) == sorted(map(str, [A, B, C]))
        assert lived.why_not(starting=0, now_s=now_s + LIMITS.breaker_open_s) is None
        assert lived.remembered_refusal(candidate, now_s + LIMITS.refusal_memory_s) is None
    assert lived.ordered([A, B, C], now_s + LIMITS.distrust_s) == [A, B, C]
