"""Where to buy, and whether at all: what the last orders and starts have taught.

Rules:

* A place (GPU type, cloud, data centre) that has refused is not asked again for ``refusal_memory_s``, for nobody.
* A place in which a pod failed to start is asked last for ``distrust_s``; where there is no other it is asked
  all the same.
* One order asks ``max_attempts`` places and no more.
* No more than ``max_starting`` pods start at one time: of a herd the others stay on duty.
* After ``breaker_failures`` starts in a row that failed, whoever's they were, nothing is bought for
  ``breaker_open_s`` (open). Then one start is tried (half open): if it serves all may buy again, if not nothing is
  bought for as long again.

Want of machines is no failure of a start: it says nothing of the next place. What is remembered is forgotten when the
gateway restarts. All times are monotonic seconds that the caller gives.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from comfy_gateway.core.life.session import STARTING, State
from comfy_gateway.core.ports import Candidate

_MOST_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class MarketLimits:
    """The settings that decide; 0 switches a memory, a bound or the breaker off."""

    refusal_memory_s: float = 30.0
    distrust_s: float = 900.0
    max_attempts: int = 10
    max_starting: int = 10
    breaker_failures: int = 5
    breaker_open_s: float = 300.0


class Place(NamedTuple):
    """Where a machine is looked for, whatever it may cost there."""

    gpu_type: str
    cloud_type: str
    data_center: str | None

    @staticmethod
    def of(candidate: Candidate) -> "Place":
        """The place of a candidate."""
        return Place(candidate.gpu_type, candidate.cloud_type, candidate.data_center)


class Breaker(StrEnum):
    """Whether anybody may buy."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Market:
    """The memory of all orders of one gateway."""

    def __init__(self, limits: MarketLimits) -> None:
        self.limits = limits
        self._refused_s: dict[Place, float] = {}
        self._distrusted_s: dict[Place, float] = {}
        self._rented: OrderedDict[str, Place] = OrderedDict()
        self._failures = 0
        self._opened_s: float | None = None

    def breaker(self, now_s: float) -> Breaker:
        """Where the breaker stands."""
        if self._opened_s is None:
            return Breaker.CLOSED
        is_over = now_s - self._opened_s >= self.limits.breaker_open_s
        return Breaker.HALF_OPEN if is_over else Breaker.OPEN

    def why_not(self, *, starting: int, now_s: float) -> str | None:
        """Why no further start may begin while so many are under way, or None."""
        breaker = self.breaker(now_s)
        if breaker is Breaker.OPEN:
            assert self._opened_s is not None
            left_s = self._opened_s + self.limits.breaker_open_s - now_s
            return f"{self._failures} starts in a row have failed, nothing is bought for {left_s:.0f} s"
        if breaker is Breaker.HALF_OPEN and starting:
            return f"{self._failures} starts in a row have failed, and one is being tried"
        if 0 < self.limits.max_starting <= starting:
            return f"{starting} pods are starting and RUNPOD_MAX_STARTING is {self.limits.max_starting}"
        return None

    def ordered(self, candidates: Sequence[Candidate], now_s: float) -> list[Candidate]:
        """All candidates in the order in which they are to be asked: those that are distrusted last."""
        return sorted(candidates, key=lambda candidate: self._is_distrusted(Place.of(candidate), now_s))

    def remembered_refusal(self, candidate: Candidate, now_s: float) -> str | None:
        """Why this one is not asked now, or None."""
        refused_s = self._refused_s.get(Place.of(candidate))
        if refused_s is None or now_s - refused_s >= self.limits.refusal_memory_s:
            return None
        return f"it was refused {now_s - refused_s:.0f} s ago"

    def refused(self, candidate: Candidate, now_s: float) -> None:
        """The cloud has certainly made nothing there."""
        self._refused_s = _fresh(self._refused_s, now_s - self.limits.refusal_memory_s)
        self._refused_s[Place.of(candidate)] = now_s

    def rented(self, pod_name: str, candidate: Candidate) -> None:
        """This pod is, or may be, at that place."""
        self._rented[pod_name] = Place.of(candidate)
        while len(self._rented) > _MOST_REMEMBERED:
            self._rented.popitem(last=False)

    def served(self, pod_name: str) -> None:
        """The pod serves its user: starts succeed, and its place is trusted."""
        place = self._rented.pop(pod_name, None)
        if place is not None:
            self._distrusted_s.pop(place, None)
        self._failures, self._opened_s = 0, None

    def failed(self, pod_name: str, now_s: float) -> str | None:
        """A start failed, wherever it stood. Returns what to tell when that opens the breaker, else None."""
        place = self._rented.pop(pod_name, None)
        if place is not None:
            self._distrusted_s = _fresh(self._distrusted_s, now_s - self.limits.distrust_s)
            self._distrusted_s[place] = now_s
        self._failures += 1
        if not 0 < self.limits.breaker_failures <= self._failures:
            return None
        if self.breaker(now_s) is Breaker.OPEN:  # one that had begun before
            return None
        self._opened_s = now_s
        open_s = self.limits.breaker_open_s
        return f"{self._failures} starts in a row have failed; no pod is bought for {open_s:.0f} s"

    def _is_distrusted(self, place: Place, now_s: float) -> bool:
        since_s = self._distrusted_s.get(place)
        return since_s is not None and now_s - since_s < self.limits.distrust_s


def starting(states: Collection[State]) -> int:
    """How many of these sessions have a pod on its way."""
    return sum(state in STARTING for state in states)


def _fresh(times_s: dict[Place, float], since_s: float) -> dict[Place, float]:
    return {place: time_s for place, time_s in times_s.items() if time_s > since_s}
