"""``/queue`` of several servers, told as if it were one.

The shape is ``{"queue_running": [item…], "queue_pending": [item…]}`` with items as in an entry of the history
(``core.results.history``). What waits is told in the order in which it is shown to run: by its number.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.results.history import item_number, plain_number

RUNNING = "queue_running"
PENDING = "queue_pending"


@dataclass(frozen=True, slots=True)
class Queue:
    """What runs and waits on one server, or on several."""

    running: list[list[Any]] = field(default_factory=list)
    pending: list[list[Any]] = field(default_factory=list)

    @classmethod
    def read(cls, document: Any) -> "Queue":
        """An answer of ``/queue``; items of another shape are left out. Raises ValueError for what is no queue."""
        if not isinstance(document, Mapping):
            raise ValueError("the queue is no object")
        parts = [document.get(name) for name in (RUNNING, PENDING)]
        if not all(isinstance(part, list) for part in parts):
            raise ValueError("the queue has no lists")
        running, pending = ([item for item in part if _is_item(item)] for part in parts if part is not None)
        return cls(running, pending)

    def ids(self) -> Iterator[str]:
        """Of all prompts."""
        for item in (*self.running, *self.pending):
            yield item[1]

    def document(self) -> dict[str, Any]:
        """As ``/queue`` answers it."""
        return {RUNNING: self.running, PENDING: self.pending}


def merge(queues: Iterable[Queue]) -> Queue:
    """One queue of all. A prompt that stands in several, while it moves from one to another, is told once: running
    rather than waiting, else as the first of them has it.
    """
    running: dict[str, list[Any]] = {}
    pending: dict[str, list[Any]] = {}
    for queue in queues:
        for item in queue.running:
            running.setdefault(item[1], item)
        for item in queue.pending:
            pending.setdefault(item[1], item)
    waiting = [item for prompt_id, item in pending.items() if prompt_id not in running]
    return Queue(list(running.values()), sorted(waiting, key=lambda item: item_number(item) or 0))


type OrderOf = Callable[[PromptRecord], float]
"""What the server of an unfinished prompt orders it by: less runs earlier."""


def by_number(record: PromptRecord) -> float:
    """The order that clients asked for, where the servers keep that."""
    return record.number


def remaining_for(
    user_key: str | None, unfinished: Iterable[PromptRecord], order_of: OrderOf = by_number
) -> int:
    """How many of a server's prompts a user waits for: their own, and those ahead of their last."""
    ordered = sorted(unfinished, key=lambda one: (one.outcome is not Outcome.RUNNING, order_of(one)))
    own = [place for place, record in enumerate(ordered, 1) if record.user_key == user_key]
    return own[-1] if own else 0


def ahead_of(
    user_key: str | None, unfinished: Iterable[PromptRecord], order_of: OrderOf = by_number
) -> int | None:
    """How many of a server's prompts end before the user's next one begins; None where none of theirs is there."""
    ordered = sorted(unfinished, key=lambda one: (one.outcome is not Outcome.RUNNING, order_of(one)))
    return next((place for place, record in enumerate(ordered) if record.user_key == user_key), None)


def places(numbers: Sequence[float | None]) -> list[float]:
    """The numbers of one's own prompts in the order in which all will run, with numbers between them for those of
    others, which are None.
    """
    told: list[float] = []
    low: float | None = None
    waiting = 0
    for number in numbers:
        if number is None:
            waiting += 1
            continue
        told += _between(low, number, waiting)
        told.append(number)
        low, waiting = number, 0
    return told + _between(low, None, waiting)


def _between(low: float | None, high: float | None, count: int) -> list[float]:
    """So many numbers in their order, between these two or at the side of one."""
    if low is not None and high is not None:
        return [low + (high - low) * step / (count + 1) for step in range(1, count + 1)]
    if high is not None:
        return [high - step for step in range(count, 0, -1)]
    return [(low or 0.0) + step for step in range(1, count + 1)]


def anonymous_item(number: float, veiled: str) -> list[Any]:
    """The place of somebody else's prompt: its number, and nothing else of it."""
    return [plain_number(number), veiled, {}, {}, []]


def veiled_id(prompt_id: str, key: bytes) -> str:
    """A UUID for a prompt's id, from which that cannot be told. ``key`` has at most 64 bytes."""
    digest = hashlib.blake2b(prompt_id.encode("utf-8", "surrogatepass"), key=key, digest_size=16).digest()
    return str(UUID(bytes=digest, version=4))


def _is_item(item: Any) -> bool:
    return isinstance(item, list) and len(item) >= 4 and isinstance(item[1], str)
