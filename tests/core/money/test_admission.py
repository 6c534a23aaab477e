"""May another pod be bought?"""

import pytest

from comfy_gateway.core.money.admission import Caps, refusal, too_dear

CAPS = Caps(max_active_sessions=10, budget_hourly_usd=20.0)


@pytest.mark.parametrize(
    ("active", "committed_usd", "price_usd"),
    [(0, 0.0, 0.0), (9, 0.0, 1.0), (9, 19.0, 1.0), (0, 0.0, 20.0)],
    ids=["first", "last place", "exactly the budget", "one pod for all of it"],
)
def test_within_both_caps_a_pod_may_be_bought(active: int, committed_usd: float, price_usd: float) -> None:
    assert (
        refusal(active_sessions=active, committed_usd=committed_usd, price_usd=price_usd, caps=CAPS) is None
    )


@pytest.mark.parametrize(
    ("active", "committed_usd", "price_usd", "words"),
    [
        (10, 0.0, 0.0, ["10 private pods", "RUNPOD_MAX_ACTIVE_SESSIONS is 10"]),
        (11, 99.0, 0.0, ["11 private pods", "RUNPOD_MAX_ACTIVE_SESSIONS is 10"]),
        (9, 19.5, 0.75, ["$19.50 an hour", "$0.75", "BUDGET_HOURLY_USD is 20"]),
        (0, 0.0, 20.01, ["$0.00 an hour", "$20.01", "BUDGET_HOURLY_USD is 20"]),
    ],
    ids=["all places taken", "more than all", "over the budget", "too dear alone"],
)
def test_over_a_cap_the_reason_names_the_setting(
    active: int, committed_usd: float, price_usd: float, words: list[str]
) -> None:
    why = refusal(active_sessions=active, committed_usd=committed_usd, price_usd=price_usd, caps=CAPS)
    assert why is not None
    assert [word for word in words if word not in why] == []


def test_caps_of_nothing_refuse_everything() -> None:
    assert refusal(active_sessions=0, committed_usd=0, price_usd=0.1, caps=Caps(0, 100)) is not None
    assert refusal(active_sessions=0, committed_usd=0, price_usd=0.1, caps=Caps(10, 0)) is not None


@pytest.mark.parametrize(
    ("place_usd", "any_usd", "why"),
    [
        (None, 0, None),
        (0.69, 0, None),
        (0.68, 0, "it costs $0.69 an hour, and here $0.68 is the most"),
        (None, 0.69, None),
        (None, 0.5, "it costs $0.69 an hour and RUNPOD_MAX_USD_PER_HOUR is 0.5"),
        (1.0, 0.5, "it costs $0.69 an hour and RUNPOD_MAX_USD_PER_HOUR is 0.5"),
    ],
)
def test_a_price_must_be_under_the_ceilings_of_its_place_and_of_all(
    place_usd: float | None, any_usd: float, why: str | None
) -> None:
    assert too_dear(0.69, place_usd=place_usd, any_usd=any_usd) == why
