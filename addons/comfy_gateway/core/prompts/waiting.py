"""How long a prompt will wait on a shared server, from how long the last ones there have run."""

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Final

LAST: Final = 20
"""Runs that count: workloads change within the hour."""
FEWEST: Final = 3
"""Fewer runs predict nothing."""


class Pace:
    """How long prompts run on one server."""

    def __init__(self) -> None:
        self._runs_s: deque[float] = deque(maxlen=LAST)

    def ran(self, seconds: float) -> None:
        """A prompt ran there to its end."""
        self._runs_s.append(max(seconds, 0.0))

    @property
    def usual_s(self) -> float | None:
        """The median: one long video among pictures says nothing of the next. None while too little is known."""
        return median(self._runs_s) if len(self._runs_s) >= FEWEST else None


def predicted_wait_s(usual_s: float, ahead_run_s: Iterable[float]) -> float:
    """Seconds until a prompt begins: ``ahead_run_s`` has those before it, each with how long it has run already."""
    return sum(max(usual_s - run_s, 0.0) for run_s in ahead_run_s)
