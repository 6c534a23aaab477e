"""The cap that all transfers of a run share, and the watch over a mirror that hardly moves."""

from aiolimiter import AsyncLimiter

from model_sync import web
from model_sync.errors import TooSlow

# In this time the cap holds: short, so that the line is used evenly.
_PERIOD_S = 0.25


class Bandwidth:
    """`max_bytes_per_s` None is no cap. `block_bytes` is the most that may be asked for at once."""

    def __init__(self, max_bytes_per_s: float | None) -> None:
        self._limiter = None
        self.block_bytes = web.BLOCK_BYTES
        if max_bytes_per_s is not None:
            budget = max(1.0, max_bytes_per_s * _PERIOD_S)
            self._limiter = AsyncLimiter(budget, _PERIOD_S)
            self.block_bytes = min(self.block_bytes, max(1, int(budget)))

    async def take(self, count: int) -> None:
        """Returns when `count` bytes, at most `block_bytes`, may pass."""
        if self._limiter is not None:
            await self._limiter.acquire(count)


class SlowWatch:
    """Only time spent waiting for the mirror counts, not that of the cap or the disk."""

    def __init__(self, bytes_per_s: float, window_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._window_s = window_s
        self._waited_s = 0.0
        self._bytes = 0

    def came(self, count: int, waited_s: float) -> None:
        """Raises TooSlow at the end of a window that brought too little."""
        self._bytes += count
        self._waited_s += waited_s
        if self._waited_s < self._window_s:
            return
        if self._bytes < self._bytes_per_s * self._waited_s:
            raise TooSlow(f"{self._bytes / self._waited_s:.0f} bytes/s over {self._waited_s:.0f} s")
        self._waited_s, self._bytes = 0.0, 0
