"""How many messages may come in a while: a bucket that fills steadily and that each message takes from."""

from dataclasses import dataclass

BURST_S = 10.0
"""So many seconds' worth may come at once."""


@dataclass(slots=True)
class MessageRate:
    """One sender's. Times are monotonic seconds."""

    per_s: float
    """0 for no bound."""
    _level: float = 0.0
    _at_s: float = 0.0

    def takes(self, now_s: float) -> bool:
        """Whether a message that comes now is within the rate; one that is not counts all the same."""
        if not self.per_s:
            return True
        self._level = max(0.0, self._level - (now_s - self._at_s) * self.per_s) + 1
        self._at_s = now_s
        return self._level <= self.per_s * BURST_S
