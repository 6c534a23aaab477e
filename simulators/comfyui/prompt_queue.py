"""The queue and the history, in ComfyUI's shapes.

The queue is a heap on (number, prompt_id): lower runs first, and `GET /queue` shows the heap as it lies.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_HISTORY = 10_000
SECRET_EXTRA_DATA = ("auth_token_comfy_org", "api_key_comfy_org")


@dataclass(order=True)
class Item:
    """One accepted prompt. `arrival` only keeps items with the same number and id comparable."""

    number: float
    prompt_id: str
    arrival: int
    prompt: dict[str, Any] = field(compare=False)
    extra_data: dict[str, Any] = field(compare=False)
    outputs: list[str] = field(compare=False)

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    def as_json(self) -> list[Any]:
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """`changed` is called after every change that `status` messages tell about."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._arrivals = itertools.count()
        self.pending: list[Item] = []
        self.running: Item | None = None
        self.history: dict[str, dict[str, Any]] = {}

    @property
    def remaining(self) -> int:
        return len(self.pending) + (self.running is not None)

    def put(
        self,
        number: float,
        prompt_id: str,
        prompt: dict[str, Any],
        extra_data: dict[str, Any],
        outputs: list[str],
    ) -> None:
        heapq.heappush(
            self.pending, Item(number, prompt_id, next(self._arrivals), prompt, extra_data, outputs)
        )
        self._changed()

    def start_next(self) -> Item | None:
        """Takes the lowest number out of the queue and calls it running; None when the queue is empty."""
        if not self.pending:
            return None
        self.running = heapq.heappop(self.pending)
        self._changed()
        return self.running

    def finish(self, item: Item, result: dict[str, Any], status: dict[str, Any]) -> None:
        self.running = None
        if len(self.history) > MOST_HISTORY:
            self.history.pop(next(iter(self.history)))
        for secret in SECRET_EXTRA_DATA:
            item.extra_data.pop(secret, None)
        self.history[item.prompt_id] = {"prompt": item.as_json(), "outputs": {}, "status": status, **result}
        self._changed()

    def clear(self) -> None:
        self.pending = []
        self._changed()

    def delete(self, prompt_id: str) -> None:
        """Takes one waiting prompt with this id out; the running one is not touched."""
        for item in self.pending:
            if item.prompt_id == prompt_id:
                self.pending.remove(item)
                heapq.heapify(self.pending)
                self._changed()
                return

    def forget(self) -> None:
        """Everything lost and nobody told, as when the process died."""
        self.pending = []
        self.running = None
        self.history = {}

    def page_of_history(self, max_items: int | None, offset: int) -> dict[str, Any]:
        """Oldest first. Without an offset (negative) the newest `max_items`."""
        if offset < 0 and max_items is not None:
            offset = len(self.history) - max_items
        offset = max(offset, 0)
        stop = None if max_items is None else offset + max(max_items, 1)
        return dict(itertools.islice(self.history.items(), offset, stop))
