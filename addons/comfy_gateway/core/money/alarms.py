"""What a person must hear of, and how often the same is said to them again.

An alarm about the same thing (kind and subject) goes out once within ``REPEAT_S``; the log has it each time.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

REPEAT_S: Final = 3600.0
MOST_REMEMBERED: Final = 10_000


class AlarmKind(StrEnum):
    """What it is about; the label of the counter."""

    ENDING = "ending"
    """A pod does not end and may cost money."""
    SPEND = "spend"
    """A budget is nearly or wholly spent."""
    CAPACITY = "capacity"
    """No place sells a machine."""
    STARTS = "starts"
    """Pods do not start; nothing is bought for a while."""
    SILENCE = "silence"
    """A pod was ended since nothing was heard of it."""
    CLOUD = "cloud"
    """The cloud tells us nothing, so that nothing can be confirmed."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that happened."""

    kind: AlarmKind
    subject: str
    """What it is about: the key of a user, the name of a pod. Makes the same alarm the same."""
    text: str
    """For a person. No secret, no internal address."""
    is_warning: bool = False
    """Nothing has been done yet."""


class Repeats:
    """Keeps the same alarm from being sent again and again. Times are monotonic seconds."""

    def __init__(self, repeat_s: float = REPEAT_S) -> None:
        self._repeat_s = repeat_s
        self._sent_s: dict[tuple[AlarmKind, str, bool], float] = {}

    def is_due(self, alarm: Alarm, now_s: float) -> bool:
        """Whether it is to be sent now; if so it counts as sent. What was only warned of is said when it comes true."""
        key = (alarm.kind, alarm.subject, alarm.is_warning)
        sent_s = self._sent_s.get(key)
        if sent_s is not None and now_s - sent_s < self._repeat_s:
            return False
        if len(self._sent_s) >= MOST_REMEMBERED:
            self._sent_s = {old: at_s for old, at_s in self._sent_s.items() if now_s - at_s < self._repeat_s}
        if len(self._sent_s) >= MOST_REMEMBERED:
            return False  # so many different ones within the hour are in the log
        self._sent_s[key] = now_s
        return True
