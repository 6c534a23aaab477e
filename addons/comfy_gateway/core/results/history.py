"""``/history`` of several servers, told as if it were one.

An entry is what ComfyUI keeps of a prompt that has ended (0.3.64, ``execution.py``):

    {"prompt": [number, prompt_id, graph, extra_data, outputs_to_execute], "outputs": {node: output},
     "status": {"status_str": "success" | "error", "completed": bool, "messages": [[type, {…, "timestamp": ms}], …]},
     "meta": {node: {…}}}

and ``/history`` is an object of entries by prompt id in the order in which they ended. Clients see an entry in its
*shown form*: files under the server's alias, the gateway's number, no secrets.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from comfy_gateway.core.files.files import show_output
from comfy_gateway.core.prompts.secrets_in_prompts import without_secrets


@dataclass(frozen=True, slots=True)
class Ended:
    """One entry in the list of a server, or of what the gateway keeps."""

    prompt_id: str
    entry: Any = field(repr=False)
    """As the server has it, or as clients see it, perhaps written already."""
    ended_ms: float | None = None
    """Milliseconds since 1970, or None where nobody knows: it ended after those that stand before it."""


def shown_entry(
    entry: Mapping[str, Any], *, alias: str, number: float | None = None, sid: str | None = None
) -> dict[str, Any]:
    """A server's own entry as clients see it.

    ``number`` is the gateway's, None leaves the server's. ``sid`` is the client's own socket id where the entry is for
    its owner: the server knows it by another.
    """
    told = dict(entry)
    if "outputs" in told:
        told["outputs"] = show_output(told["outputs"], alias)
    if "prompt" in told:
        told["prompt"] = shown_item(told["prompt"], number=number, sid=sid)
    return told


def shown_item(item: Any, *, number: float | None = None, sid: str | None = None) -> Any:
    """``[number, prompt_id, graph, extra_data, outputs_to_execute]`` as clients see it; anything else as it is.

    What stands behind the five (newer servers keep secrets there) is left out.
    """
    if not isinstance(item, list) or len(item) < 4:
        return item
    own_number, prompt_id, graph, extra_data, *outputs = item[:5]
    shown_number = own_number if number is None else plain_number(number)
    return [shown_number, prompt_id, graph, shown_extra_data(extra_data, sid), *outputs]


def shown_extra_data(extra_data: Any, sid: str | None) -> Any:
    """``extra_data`` without secrets, and with the client's own socket id where that is for the asker to know."""
    told = without_secrets(extra_data)  # ComfyUI 0.3.64 shows them to everybody who reads its queue
    return {**told, "client_id": sid} if sid and isinstance(told, Mapping) and "client_id" in told else told


def plain_number(number: float) -> float:
    """A whole number as one: clients compare and print it."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def number_of(entry: Any) -> float | None:
    """The number in an entry, or None when it has none."""
    return item_number(entry.get("prompt")) if isinstance(entry, Mapping) else None


def item_number(item: Any) -> float | None:
    """The number in an item of a queue or an entry, or None when it has none."""
    number = item[0] if isinstance(item, list) and item else None
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    return number if is_number else None


def ended_ms(entry: Any) -> float | None:
    """When the prompt ended by the server's own clock, or None when the entry does not tell."""
    status = entry.get("status") if isinstance(entry, Mapping) else None
    messages = status.get("messages") if isinstance(status, Mapping) else None
    times = [
        message[1]["timestamp"]
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, list)
        and len(message) == 2
        and isinstance(message[1], Mapping)
        and isinstance(message[1].get("timestamp"), int | float)
    ]
    return max(times, default=None)


def merge(lists: Iterable[Sequence[Ended]]) -> list[Ended]:
    """All entries in the order in which they ended; each list keeps its own order.

    An id that stands in several lists is taken from the first of them.
    """
    seen: set[str] = set()
    timed: list[list[tuple[float, int, int, Ended]]] = []
    for position, entries in enumerate(lists):
        latest = -math.inf
        row = []
        for index, ended in enumerate(entries):
            if ended.prompt_id in seen:
                continue
            seen.add(ended.prompt_id)
            # A clock that was set back, or none, must not turn a server's own order around.
            latest = max(latest, -math.inf if ended.ended_ms is None else ended.ended_ms)
            row.append((latest, position, index, ended))
        timed.append(row)
    return [row[3] for row in heapq.merge(*timed, key=lambda row: row[:3])]


@dataclass(frozen=True, slots=True)
class Window:
    """``max_items`` and ``offset`` of ``/history``; None and -1 where they are not given."""

    max_items: int | None = None
    offset: int = -1

    def of(self, entries: Sequence[Ended]) -> list[Ended]:
        """The part that is asked for, with all the corners of ComfyUI's own loop (``PromptQueue.get_history``)."""
        offset = self.offset
        if offset < 0 and self.max_items is not None:
            offset = len(entries) - self.max_items
        part = islice(entries, max(offset, 0), None)
        return list(part if self.max_items is None else islice(part, max(self.max_items, 1)))

    def of_each(self) -> "Window":
        """What to ask of each list, so that ``of`` finds everything that it needs in the merged one."""
        if self.max_items is None:
            return Window()
        if self.offset < 0:
            return Window(max(self.max_items, 0))
        return Window(self.offset + max(self.max_items, 1), 0)

    def query(self) -> str:
        """As ``/history`` takes it, empty for everything."""
        if self.max_items is None:
            return "" if self.offset < 0 else f"?offset={self.offset}"
        return f"?max_items={self.max_items}" + ("" if self.offset < 0 else f"&offset={self.offset}")


def read_entries(document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Prompt id and entry of each in an answer of ``/history``; what has another shape is left out.

    Raises ValueError for what is no object.
    """
    if not isinstance(document, Mapping):
        raise ValueError("the history is no object")
    for prompt_id, entry in document.items():
        if isinstance(entry, Mapping):
            yield prompt_id, entry
