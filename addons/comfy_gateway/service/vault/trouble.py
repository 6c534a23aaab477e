"""What the vault tells operators: numbers, and one line when its place cannot be written."""

import logging
from dataclasses import dataclass
from typing import Final

from comfy_gateway.core.ports import Clock

logger = logging.getLogger(__name__)

REPEAT_S: Final = 60.0


@dataclass
class VaultStats:
    """Counted since the start, but for the last three, which are as they are now."""

    files_stored: int = 0
    bytes_copied: int = 0
    copies_failed: int = 0
    """Tries that got nothing from a pod."""
    names_refused: int = 0
    """Files whose names no disk may have."""
    files_lost: int = 0
    """Files that prompts named and that were not copied before their pod was gone."""
    pods_incomplete: int = 0
    """Pods that ended before all of their files were known to be safe."""
    files_expired: int = 0
    """Files that retention removed."""
    files_waiting: int = 0
    size_bytes: int = 0
    is_broken: int = 0
    """1 while the place of the vault cannot be written."""


class Trouble:
    """Says at most once a minute that the vault cannot be written, and once that it can be again."""

    def __init__(self, clock: Clock, stats: VaultStats) -> None:
        self._clock = clock
        self._stats = stats
        self._said_s: float | None = None
        self.reason: str | None = None
        """Why the vault cannot be written, or None while it can."""

    def note(self, reason: str) -> None:
        """A write has just failed."""
        now_s = self._clock.monotonic()
        self.reason = reason
        self._stats.is_broken = 1
        if self._said_s is None or now_s - self._said_s >= REPEAT_S:
            self._said_s = now_s
            logger.error("The vault cannot be written, outputs stay on their pods: %s", reason)

    def over(self) -> None:
        """A write has just worked."""
        if self.reason is not None:
            logger.warning("The vault can be written again")
        self.reason = self._said_s = None
        self._stats.is_broken = 0
