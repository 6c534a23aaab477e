"""What pods have cost, from the price that the cloud told and the time from the order to the confirmed end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta


@dataclass(frozen=True, slots=True)
class Bill:
    """One pod, living or gone. Times are aware."""

    user_key: str
    pod_name: str
    gpu_type: str | None
    usd_per_hour: float | None
    """None where the cloud never said; such a pod counts as free, and ``costs`` says so."""
    began_at: datetime
    ended_at: datetime | None
    is_running: bool
    """A session has it. A pod without an end that nobody has is not counted: how long it lived is not known."""
    cause: str | None = None
    """Why it ended."""

    def hours(self, since: datetime, until: datetime) -> float:
        """Of its life within these bounds."""
        end = self.ended_at or (until if self.is_running else self.began_at)
        return max((min(end, until) - max(self.began_at, since)).total_seconds(), 0.0) / 3600

    def usd(self, since: datetime, until: datetime) -> float:
        """What it cost within these bounds."""
        return self.hours(since, until) * (self.usd_per_hour or 0.0)


def day_of(moment: datetime) -> datetime:
    """The beginning of its day, in UTC."""
    return datetime.combine(moment.astimezone(UTC).date(), time(), UTC)


def spent_by_user(bills: Iterable[Bill], *, since: datetime, until: datetime) -> Mapping[str, float]:
    """Dollars by user key."""
    spent: defaultdict[str, float] = defaultdict(float)
    for bill in bills:
        spent[bill.user_key] += bill.usd(since, until)
    return spent


def spent_by_day(bills: Iterable[Bill], *, since: datetime, until: datetime) -> Mapping[date, float]:
    """Dollars by day of UTC; days without any are left out."""
    spent: defaultdict[date, float] = defaultdict(float)
    for bill in bills:
        begin = day_of(max(bill.began_at, since))
        end = min(bill.ended_at or until, until)
        while begin < end:
            next_day = begin + timedelta(days=1)
            spent[begin.date()] += bill.usd(max(begin, since), min(next_day, until))
            begin = next_day
    return {day: usd for day, usd in sorted(spent.items()) if usd > 0}
