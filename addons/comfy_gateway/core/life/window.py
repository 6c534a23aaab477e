"""The rolling window that turns accepted prompts into a burst."""

from collections import deque


class PromptWindow:
    """Remembers the last accepted prompts of one user.

    ``count`` prompts within ``window_s`` seconds are a burst; a count of 0 means that the first sign of life is one.
    """

    def __init__(self, count: int, window_s: float) -> None:
        self._count = count
        self._window_s = window_s
        self._times: deque[float] = deque(maxlen=max(count, 1))

    def add(self, now_s: float) -> bool:
        """Note one accepted prompt at a monotonic time; True when it completes a burst."""
        self._times.append(now_s)
        return len(self._times) >= self._count and now_s - self._times[0] <= self._window_s

    def count_at(self, now_s: float) -> int:
        """Prompts that still lie within the window."""
        return sum(1 for time in self._times if now_s - time <= self._window_s)
