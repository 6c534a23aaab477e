"""What a pod has cost, within bounds of time."""

from datetime import UTC, date, datetime, timedelta

import pytest

from comfy_gateway.core.money.costs import Bill, day_of, spent_by_day, spent_by_user

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVER = datetime(2026, 1, 1, tzinfo=UTC)


def bill(
    user: str = "alice", *, began: datetime = NOON, ended: datetime | None = NOON + 2 * HOUR, running: bool = False,
    price: float | None = 0.5,
) -> Bill:  # fmt: skip
    return Bill(f"named:{user}", f"pod-{user}", "RTX 4090", price, began, ended, running)


def test_a_pod_costs_its_price_from_order_to_end() -> None:
    assert bill().usd(EVER, NOON + 10 * HOUR) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        (NOON + HOUR, NOON + 10 * HOUR, 1),
        (EVER, NOON + HOUR, 1),
        (NOON + 3 * HOUR, NOON + 4 * HOUR, 0),
        (EVER, NOON - HOUR, 0),
    ],
)
def test_only_what_lies_within_the_bounds_counts(since: datetime, until: datetime, hours: float) -> None:
    assert bill().hours(since, until) == hours


def test_a_running_pod_counts_until_now_and_one_whose_end_nobody_knows_not_at_all() -> None:
    assert bill(ended=None, running=True).hours(EVER, NOON + 5 * HOUR) == 5
    assert bill(ended=None).hours(EVER, NOON + 5 * HOUR) == 0


def test_a_pod_without_a_price_is_free() -> None:
    assert bill(price=None).usd(EVER, NOON + 5 * HOUR) == 0


def test_sums_by_user_and_by_day() -> None:
    over_midnight = bill("bob", began=NOON + 10 * HOUR, ended=NOON + 16 * HOUR)
    bills = [bill(), bill(), over_midnight, bill("carol", ended=None)]
    until = NOON + 20 * HOUR
    assert spent_by_user(bills, since=EVER, until=until) == {
        "named:alice": pytest.approx(2.0),
        "named:bob": pytest.approx(3.0),
        "named:carol": 0.0,
    }
    assert spent_by_day(bills, since=EVER, until=until) == {
        date(2026, 11, 23): pytest.approx(3.0),
        date(2026, 11, 24): pytest.approx(2.0),
    }


def test_days_are_those_of_utc() -> None:
    tokyo = datetime.fromisoformat("2026-11-24T03:00:00+09:00")
    assert day_of(tokyo) == datetime(2026, 11, 23, tzinfo=UTC)
