"""Hours in which private pods are allowed, such as ``mon-fri 08:00-20:00, sat 22:00-04:00``.

A time is one of the wall in the zone that is given: in the hour that a change of summer time repeats or skips it counts
as the clocks there show it. What goes past midnight belongs to the day on which it begins.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALLOWED: Final = "days and times such as mon-fri 08:00-20:00, sat 22:00-04:00; daily 06:00-24:00"
_WINDOW: Final = re.compile(
    r"(?P<first>daily|[a-z]{3})(-(?P<last>[a-z]{3}))? (?P<begin>[0-9]{2}:[0-9]{2})-(?P<end>[0-9]{2}:[0-9]{2})"
)
_DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """Some hours on some days, 0 for Monday; in minutes since midnight, beyond 1440 where it ends on the next day."""

    days: frozenset[int]
    begin_minute: int
    end_minute: int

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether that minute of that day is within."""
        is_today = weekday in self.days and self.begin_minute <= minute < self.end_minute
        is_from_yesterday = (weekday - 1) % 7 in self.days and minute + _DAY_MINUTES < self.end_minute
        return is_today or is_from_yesterday


@dataclass(frozen=True, slots=True)
class Hours:
    """No windows: at all hours."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo = UTC
    text: str = ""

    def why_not(self, now: datetime) -> str | None:
        """Why no pod may run at this aware moment, or None."""
        if not self.windows:
            return None
        local = now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        if any(window.holds(local.weekday(), minute) for window in self.windows):
            return None
        return f"it is {local:%a %H:%M} and RUNPOD_HOURS is {self.text}"


def parse(text: str) -> tuple[Window, ...]:
    """The windows of a setting. Raises ValueError that says what is allowed."""
    return tuple(_window(part.strip().lower()) for part in text.split(",") if part.strip())


def _window(text: str) -> Window:
    found = _WINDOW.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(ALLOWED)
    begin, end = _minute(found["begin"]), _minute(found["end"])
    if begin in {end, _DAY_MINUTES}:
        raise ValueError(f"{ALLOWED}; {text!r} is no time at all")
    return Window(_days(found["first"], found["last"]), begin, end if end > begin else end + _DAY_MINUTES)


def _days(first: str, last: str | None) -> frozenset[int]:
    if first == "daily" and last is None:
        return frozenset(range(7))
    if first not in DAYS or (last or first) not in DAYS:
        raise ValueError(ALLOWED)
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((begin + offset) % 7 for offset in range((end - begin) % 7 + 1))


def _minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > _DAY_MINUTES:
        raise ValueError(f"{ALLOWED}; there is no {text}")
    return hour * 60 + minute
