"""Results that were sent to clients and that none of them has confirmed.

What was written to a socket has not arrived: a page that reloads, or a line that breaks, takes with it what was on its
way, and ComfyUI never says it again. After each result the client is therefore asked, by a ping, whether it has got
this far; every WebSocket library answers by itself when it reads the ping. What nobody has confirmed is told again
to the next client of the same socket id.

Results are what a client waits for: outputs, verdicts and releases.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from comfy_gateway.core.events.frames import Frame

MAX_FRAMES: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Sent:
    frame: Frame
    prompt_id: str
    at_s: float


class Receipts:
    """Numbered in the order of sending: who confirms a number has got everything before it."""

    def __init__(self, *, repeat_s: float, max_bytes: int) -> None:
        """``repeat_s``: from clients that never confirm anything, only what is younger than this counts as lost."""
        self._repeat_s = repeat_s
        self._max_bytes = max_bytes
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._last = 0
        self._are_confirmed = False

    def number(self, frame: Frame, prompt_id: str, now_s: float) -> Frame:
        """The frame of a result with the number of its receipt. Beyond the bounds the oldest are given up."""
        self._last += 1
        numbered = replace(frame, receipt=self._last)
        self._sent.append(_Sent(numbered, prompt_id, now_s))
        self._sent_bytes += frame.size_bytes
        while len(self._sent) > MAX_FRAMES or (self._sent_bytes > self._max_bytes and len(self._sent) > 1):
            self._drop_oldest()
        return numbered

    def confirm(self, number: int) -> None:
        """A client has got this one, and all before. 0 says only that this client confirms what it gets."""
        self._are_confirmed = True
        while self._sent and self._sent[0].frame.receipt <= number:
            self._drop_oldest()

    def unconfirmed(self, now_s: float) -> list[Frame]:
        """What may not have arrived, oldest first."""
        self._forget_old(now_s)
        return [sent.frame for sent in self._sent]

    def prompts(self, now_s: float) -> set[str]:
        """The prompts that those results are of."""
        self._forget_old(now_s)
        return {sent.prompt_id for sent in self._sent}

    def _forget_old(self, now_s: float) -> None:
        while self._sent and not self._are_confirmed and now_s - self._sent[0].at_s > self._repeat_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._sent_bytes -= self._sent.popleft().frame.size_bytes
