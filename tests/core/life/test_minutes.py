"""Samples as one value for each minute."""

from datetime import UTC, datetime, timedelta

from comfy_gateway.core.life.minutes import STEPS, by_minute

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_a_minute_has_the_mean_utilisation_and_the_longest_queue() -> None:
    found = by_minute([(ago(50), 10.0, 3), (ago(10), 21.0, 0), (ago(70), None, 1)], NOW)
    assert found.utilization_percent[-2:] == (None, 16)
    assert found.queue[-2:] == (1, 3)


def test_what_is_not_of_this_hour_or_not_known_leaves_a_gap() -> None:
    found = by_minute([(ago(3600), 50.0, 1), (ago(-1), 50.0, 1), (ago(3599), None, None)], NOW)
    assert found.utilization_percent == found.queue == (None,) * STEPS
    assert by_minute([(ago(3599), 50.0, 1)], NOW).queue[0] == 1
