"""What may be spent in a day."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.life.ending_reasons import Why
from comfy_gateway.core.money.budget import Bound, Budget

ALICE, BOB, CAROL = "named:alice", "named:bob", "named:carol"
FILM = {"film": frozenset({ALICE, BOB})}


def refusal(
    budget: Budget, spent: dict[str, float], committed: dict[str, float], reserve: float
) -> str | None:
    refusals = (bound.refusal(spent, committed, reserve) for bound in budget.bounds(ALICE))
    return next((text for text in refusals if text), None)


@pytest.mark.parametrize(
    ("budget", "spent", "committed", "reserve", "told"),
    [
        (Budget(), {ALICE: 1e6}, {}, 1e6, None),
        (Budget(daily_usd=10), {ALICE: 9.0}, {}, 1.0, None),
        (Budget(daily_usd=10), {BOB: 9.0}, {}, 1.1, "BUDGET_DAILY_USD is 10"),
        (Budget(daily_usd=10), {BOB: 5.0}, {CAROL: 4.5}, 1.0, "$4.50 are reserved"),
        (Budget(user_daily_usd=10), {ALICE: 9.0, BOB: 90.0}, {BOB: 9.0}, 1.0, None),
        (Budget(user_daily_usd=10), {ALICE: 9.0}, {}, 1.1, "BUDGET_USER_DAILY_USD is 10"),
        (Budget(team_daily_usd={"film": 10}, teams=FILM), {BOB: 9.0, CAROL: 99.0}, {}, 1.0, None),
        (
            Budget(team_daily_usd={"film": 10}, teams=FILM),
            {ALICE: 4.0, BOB: 5.0},
            {BOB: 0.5},
            1.0,
            "BUDGET_TEAM_DAILY_USD of team film is 10",
        ),
        (Budget(team_daily_usd={"film": 10}, teams={"film": frozenset({BOB})}), {BOB: 99.0}, {}, 1.0, None),
    ],
    ids=[
        "no bound",
        "exactly the day",
        "more than the day",
        "what is reserved counts",
        "others are not oneself",
        "more than one's own day",
        "others are not the team",
        "more than the team's day",
        "not in the team",
    ],
)
def test_a_pod_is_bought_while_its_reserve_is_within_all_budgets_of_its_user(
    budget: Budget, spent: dict[str, float], committed: dict[str, float], reserve: float, told: str | None
) -> None:
    found = refusal(budget, spent, committed, reserve)
    assert found is None if told is None else told in (found or "")


def test_what_is_spent_ends_pods_and_nearly_warns_before() -> None:
    [bound] = Budget(daily_usd=10).bounds(ALICE)
    assert bound.exhausted({BOB: 9.99}) is None
    assert bound.exhausted({BOB: 10}) == "$10.00 were spent today and BUDGET_DAILY_USD is 10"
    assert bound.nearly({BOB: 7.99}) is None
    assert bound.nearly({BOB: 8}) == "$8.00 of BUDGET_DAILY_USD=10 were spent today"


def test_a_users_own_budget_is_told_first_then_the_teams_then_that_of_all() -> None:
    budget = Budget(1, 2, team_daily_usd={"film": 3}, teams=FILM)
    assert [bound.why for bound in budget.bounds(ALICE)] == [Why.USER_BUDGET, Why.TEAM_BUDGET, Why.BUDGET]
    assert [bound.why for bound in budget.bounds(CAROL)] == [Why.USER_BUDGET, Why.BUDGET]


@pytest.mark.parametrize(
    ("budget", "is_bounded"),
    [
        (Budget(), False),
        (Budget(max_lifetime_s=1), False),
        (Budget(daily_usd=1), True),
        (Budget(user_daily_usd=1), True),
        (Budget(team_daily_usd={"film": 1}), True),
    ],
)
def test_without_a_budget_nothing_needs_to_be_summed(budget: Budget, is_bounded: bool) -> None:
    assert budget.is_bounded is is_bounded


@given(
    orders=st.lists(st.tuples(st.sampled_from([ALICE, BOB, CAROL]), st.integers(1, 400)), max_size=30),
    limit=st.integers(0, 1000),
)
def test_however_orders_follow_one_another_what_is_reserved_stays_within_the_budget(
    orders: list[tuple[str, int]], limit: int
) -> None:
    """In cents, and each reserved at once: as ``Launch`` does it, without anything in between."""
    bound = Bound(Why.BUDGET, "BUDGET_DAILY_USD", "all", float(limit), None)
    reserved: dict[str, float] = {}
    for user, cents in orders:
        if bound.refusal({}, reserved, cents) is None:
            reserved[user] = reserved.get(user, 0.0) + cents
        else:
            assert sum(reserved.values()) + cents > limit
    assert sum(reserved.values()) <= limit
    assert (
        replace(bound, limit_usd=float(limit)).exhausted(reserved) is None or sum(reserved.values()) == limit
    )
