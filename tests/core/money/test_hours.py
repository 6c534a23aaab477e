"""Hours in which pods are allowed."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from comfy_gateway.core.money.hours import Hours, parse

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    """2026-11-23 was a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment", "is_open"),
    [
        ("mon-fri 08:00-20:00", "2026-11-23T07:59:59", False),
        ("mon-fri 08:00-20:00", "2026-11-23T08:00:00", True),
        ("mon-fri 08:00-20:00", "2026-11-23T19:59:59", True),
        ("mon-fri 08:00-20:00", "2026-11-23T20:00:00", False),
        ("mon-fri 08:00-20:00", "2026-11-28T12:00:00", False),
        ("fri-mon 08:00-20:00", "2026-11-29T12:00:00", True),
        ("fri-mon 08:00-20:00", "2026-11-24T12:00:00", False),
        ("sun 22:00-04:00", "2026-11-29T22:00:00", True),
        ("sun 22:00-04:00", "2026-11-30T03:59:00", True),
        ("sun 22:00-04:00", "2026-11-30T04:00:00", False),
        ("sun 22:00-04:00", "2026-11-29T03:00:00", False),
        ("daily 06:00-24:00", "2026-11-24T23:59:00", True),
        ("daily 06:00-24:00", "2026-11-24T05:59:00", False),
        ("daily 00:00-24:00", "2026-11-24T00:00:00", True),
        ("mon 08:00-09:00,  SAT   10:00-11:00", "2026-11-28T10:30:00", True),
    ],
)
def test_pods_are_allowed_within_the_windows_alone(text: str, moment: str, is_open: bool) -> None:
    assert (Hours(parse(text), UTC, text).why_not(at(moment)) is None) is is_open


def test_hours_are_those_of_the_zone_also_when_its_clocks_change() -> None:
    hours = Hours(parse("daily 08:00-20:00"), BERLIN, "daily 08:00-20:00")
    assert hours.why_not(at("2026-07-01T06:30")) is None
    assert hours.why_not(at("2026-12-01T06:30")) == "it is Tue 07:30 and RUNPOD_HOURS is daily 08:00-20:00"
    assert hours.why_not(at("2026-12-01T07:30")) is None


def test_without_windows_pods_are_always_allowed() -> None:
    assert Hours().why_not(at("2026-11-23T03:00")) is None
    assert parse(" , ") == ()


@pytest.mark.parametrize(
    "text",
    ["always", "mon", "08:00-20:00", "mon 8:00-20:00", "mon 08:00-25:00", "mon 08:61-20:00", "mon 08:00-08:00",
     "mon 24:00-08:00", "day 08:00-20:00", "mon-day 08:00-20:00", "daily-fri 08:00-20:00"],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="days and times such as"):
        parse(text)
