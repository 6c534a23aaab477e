"""What has changed in a list of things since a listener was last told, within a bounded number of bytes.

A thing is told whole once, and then only its fields that changed. What does not fit now is told later, as it is then:
a listener who is slow, or a list that changes quickly, costs no more bytes.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

BYTES_PER_S: Final = 900.0
"""3.2 MB an hour, apart from the first list."""
BURST_BYTES: Final = 32 * 1024
URGENT: Final = frozenset({"state", "is_healthy"})
"""Fields whose changes are told before others."""
GONE: Final[Mapping[str, Any]] = {"is_gone": True}

type Things = Mapping[str, Mapping[str, Any]]
"""Fields by id. Values can be written as JSON."""


class Differences:
    """For one listener."""

    def __init__(self, *, bytes_per_s: float = BYTES_PER_S, burst_bytes: int = BURST_BYTES) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst_bytes = burst_bytes
        self._allowed_bytes = float(burst_bytes)
        self._counted_at_s: float | None = None
        self._told: dict[str, Mapping[str, Any]] = {}
        self._told_at_s: dict[str, float] = {}

    def first(self, things: Things, now_s: float) -> bytes:
        """All of it, as a JSON list of ``{"id", …all fields}``."""
        self._told = dict(things)
        self._told_at_s = dict.fromkeys(things, now_s)
        self._counted_at_s = now_s
        return orjson.dumps([{"id": id_, **fields} for id_, fields in things.items()])

    def next(self, things: Things, now_s: float) -> bytes | None:
        """A JSON list of ``{"id", …changed fields}``, ``is_gone`` for what is no more; None where nothing is told."""
        self._refill(now_s)
        changed = {
            id_: {name: value for name, value in fields.items() if before.get(name) != value}
            if (before := self._told.get(id_)) is not None
            else fields
            for id_, fields in things.items()
            if self._told.get(id_) != fields
        }
        changed |= dict.fromkeys(self._told.keys() - things.keys(), GONE)

        def order(id_: str) -> tuple[bool, float]:
            fields = changed[id_]
            is_urgent = id_ not in self._told or fields is GONE or not URGENT.isdisjoint(fields)
            return not is_urgent, self._told_at_s.get(id_, 0.0)

        parts: list[bytes] = []
        for id_ in sorted(changed, key=order):
            part = orjson.dumps({"id": id_, **changed[id_]})
            if len(part) + 1 > self._allowed_bytes:
                break
            self._allowed_bytes -= len(part) + 1
            parts.append(part)
            self._note(id_, things.get(id_), now_s)
        return b"[" + b",".join(parts) + b"]" if parts else None

    def _note(self, id_: str, fields: Mapping[str, Any] | None, now_s: float) -> None:
        if fields is None:
            del self._told[id_]
            self._told_at_s.pop(id_, None)
        else:
            self._told[id_] = fields
            self._told_at_s[id_] = now_s

    def _refill(self, now_s: float) -> None:
        since_s = now_s if self._counted_at_s is None else self._counted_at_s
        self._counted_at_s = now_s
        more = (now_s - since_s) * self._bytes_per_s
        self._allowed_bytes = min(self._allowed_bytes + more, float(self._burst_bytes))
