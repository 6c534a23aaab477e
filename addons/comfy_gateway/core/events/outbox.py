"""What waits to be sent to one socket: in order, and within bounds."""

from collections import OrderedDict, deque

from comfy_gateway.core.events.frames import Frame


class Outbox:
    """A queue of frames that gives up previews first and events never.

    * Over ``preview_budget_bytes`` of unsent frames the oldest previews are dropped. The newest stays,
      unless it alone is larger than the budget.
    * With ``event_budget_bytes`` of unsent events nothing more is taken in. One event of any size always
      fits into a queue below that, so the memory is bounded by both budgets and one frame.
    """

    def __init__(self, *, preview_budget_bytes: int, event_budget_bytes: int) -> None:
        self._preview_budget_bytes = preview_budget_bytes
        self._event_budget_bytes = event_budget_bytes
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._previews: deque[int] = deque()
        self._next = 0
        self._event_bytes = 0
        self._preview_bytes = 0
        self.dropped_previews = 0
        """How many were dropped since the beginning."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def unsent_bytes(self) -> int:
        """Payload bytes of all frames that wait."""
        return self._event_bytes + self._preview_bytes

    def put(self, frame: Frame) -> bool:
        """Append a frame. False, and nothing is changed, when too many events wait already."""
        if not frame.is_preview and self._event_bytes >= self._event_budget_bytes:
            return False
        self._frames[self._next] = frame
        if frame.is_preview:
            self._previews.append(self._next)
            self._preview_bytes += frame.size_bytes
        else:
            self._event_bytes += frame.size_bytes
        self._next += 1
        self._drop_previews()
        return True

    def take(self) -> Frame | None:
        """Remove and return the oldest frame, or None when nothing waits."""
        if not self._frames:
            return None
        _, frame = self._frames.popitem(last=False)
        if frame.is_preview:
            self._previews.popleft()
            self._preview_bytes -= frame.size_bytes
        else:
            self._event_bytes -= frame.size_bytes
        return frame

    def clear(self) -> None:
        """Forget what waits; it does not count as dropped."""
        self._frames.clear()
        self._previews.clear()
        self._event_bytes = self._preview_bytes = 0

    def _drop_previews(self) -> None:
        while self._previews and self.unsent_bytes > self._preview_budget_bytes:
            is_newest = len(self._previews) == 1
            if is_newest and self._preview_bytes <= self._preview_budget_bytes:
                return
            dropped = self._frames.pop(self._previews.popleft())
            self._preview_bytes -= dropped.size_bytes
            self.dropped_previews += 1
