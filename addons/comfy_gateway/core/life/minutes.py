"""Samples as one value for each minute, for charts: an hour of them is 60 numbers, however often was asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

STEP_S: Final = 60
STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class Minutes:
    """Oldest first; None for a minute of which nothing is known."""

    utilization_percent: tuple[int | None, ...]
    """The mean."""
    queue: tuple[int | None, ...]
    """The largest: a short queue must not vanish between two quiet moments."""


def by_minute(samples: Iterable[tuple[datetime, float | None, int | None]], until: datetime) -> Minutes:
    """The last hour before ``until``. Samples are time, utilisation in per cent and prompts in the queue."""
    utilizations: list[list[float]] = [[] for _ in range(STEPS)]
    queues: list[int | None] = [None] * STEPS
    for at, utilization_percent, queue in samples:
        back = int((until - at).total_seconds() // STEP_S)
        if not 0 <= back < STEPS:
            continue
        place = STEPS - 1 - back
        if utilization_percent is not None:
            utilizations[place].append(utilization_percent)
        if queue is not None:
            queues[place] = max(queue, queues[place] or 0)
    return Minutes(tuple(round(sum(one) / len(one)) if one else None for one in utilizations), tuple(queues))
