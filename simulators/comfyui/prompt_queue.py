"""The queue and the history, in ComfyUI's shapes (execution.py:1044).

The queue is a heap of tuples that begin with (number, prompt_id): lower runs first, and `GET /queue` shows the
heap as it lies. Two prompts with one number and one id are compared by their dictionaries, which Python
refuses: the second is answered with 500, and stands in the queue all the same.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_HISTORY = 10_000
SECRET_EXTRA_DATA = ("auth_token_comfy_org", "api_key_comfy_org")


@dataclass(eq=False)
class Item:
    """One accepted prompt. `secrets` are what newer cores take out of extra_data before anybody sees it."""

    number: float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]
    secrets: dict[str, Any] = field(default_factory=dict)

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    def __lt__(self, other: "Item") -> bool:
        """Raises TypeError where only dictionaries tell the two apart."""
        return (*self.as_json(), self.secrets) < (*other.as_json(), other.secrets)

    def as_json(self) -> list[Any]:
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """`changed` is called after every change that `status` messages tell about."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.pending: list[Item] = []
        self.running: Item | None = None
        self.history: dict[str, dict[str, Any]] = {}

    @property
    def remaining(self) -> int:
        return len(self.pending) + (self.running is not None)

    def put(self, item: Item) -> None:
        """Raises TypeError, after it was put in, for one that cannot be compared with another."""
        heapq.heappush(self.pending, item)
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

    def delete(self, prompt_id: str) -> bool:
        """Takes one waiting prompt with this id out; the running one is not touched. Whether there was one.

        The last one is cleared and then told once more, as in ComfyUI.
        """
        for item in self.pending:
            if item.prompt_id == prompt_id:
                if len(self.pending) == 1:
                    self.clear()
                else:
                    self.pending.remove(item)
                    heapq.heapify(self.pending)
                self._changed()
                return True
        return False

    def lose(self, prompt_id: str) -> None:
        """Nothing knows of this prompt any more, and nobody is told."""
        self.pending = [item for item in self.pending if item.prompt_id != prompt_id]
        heapq.heapify(self.pending)
        self.history.pop(prompt_id, None)
        if self.running is not None and self.running.prompt_id == prompt_id:
            self.running = None

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
