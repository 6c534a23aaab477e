"""Work in flight on each backend, and when it last ended."""

from collections import Counter

from comfy_gateway.core.ports import Clock


class Activity:
    """Counts the transfers that the router has sent to a backend and that have not ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._last_s: dict[str, float] = {}

    def begin(self, backend_id: str) -> None:
        """A transfer starts."""
        self._in_flight[backend_id] += 1
        self.touch(backend_id)

    def end(self, backend_id: str) -> None:
        """A transfer has ended, however it did."""
        self._in_flight[backend_id] -= 1
        if self._in_flight[backend_id] <= 0:
            del self._in_flight[backend_id]
        self.touch(backend_id)

    def touch(self, backend_id: str) -> None:
        """Something that counts as use happened just now."""
        self._last_s[backend_id] = self._clock.monotonic()

    def in_flight(self, backend_id: str) -> int:
        """Transfers that run at this moment."""
        return self._in_flight[backend_id]

    def last_s(self, backend_id: str) -> float | None:
        """Monotonic time of the last use, or None if there was none."""
        return self._last_s.get(backend_id)

    def forget(self, backend_id: str) -> None:
        """Drop what is known of a backend that is gone."""
        self._last_s.pop(backend_id, None)
