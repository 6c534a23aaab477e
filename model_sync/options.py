"""How a run goes about its work: numbers, not what to fetch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Defaults are for the open internet.

    `retries`: attempts in a row that bring nothing, before a mirror is given up. A mirror that brings some bytes with
    each attempt is never given up.
    `slow_bytes_per_s`, `slow_window_s`: below this mean for that long the other mirrors are tried first.
    """

    parallel: int = 4
    max_bytes_per_s: float | None = None
    retries: int = 6
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    retry_after_max_s: float = 300.0
    stall_s: float = 60.0
    slow_bytes_per_s: float = 16 * 1024
    slow_window_s: float = 30.0
    # Between looks at a file that another process is fetching.
    look_again_s: float = 1.0
