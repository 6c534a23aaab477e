"""When will a pod be ready? Told from the starts of our own that came to an end, and from nothing else."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

FEW: Final = 5
"""With fewer starts of a GPU type those of all types count together; with fewer of all nothing is told."""


@dataclass(frozen=True, slots=True)
class Start:
    """A pod that became ready once."""

    gpu_type: str | None
    seconds: float
    """From the order to the first prompt that it could have taken."""


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds in which half of the starts, and nine of ten, came to their end."""

    p50: float
    p90: float


def estimate(starts: Iterable[Start], gpu_type: str | None, *, age_s: float = 0.0) -> Eta | None:
    """How much longer a pod will take that was ordered ``age_s`` ago; None where too little is known.

    Only starts that took longer than that are compared with: a pod that is late is not about to be ready.
    """
    known = list(starts)
    alike = [start.seconds for start in known if start.gpu_type == gpu_type]
    seconds = alike if len(alike) >= FEW else [start.seconds for start in known]
    left_s = [took_s - age_s for took_s in seconds if took_s > age_s]
    if len(seconds) < FEW or not left_s:
        return None
    return Eta(statistics.median(left_s), _p90(left_s))


def _p90(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=10, method="inclusive")[8]
