"""JSON as ComfyUI writes it: Python's own dialect, in which NaN and Infinity may stand for a number."""

import json
from typing import Any

import orjson


def read(raw: bytes) -> Any:
    """The value, by the fast reader where that can read it. Raises ValueError for what is no JSON in either dialect."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return json.loads(raw)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def write(value: Any) -> bytes:
    """What ``read`` reads back. Raises ValueError for what is nested too deeply or no JSON at all.

    orjson would write NaN as null; such values are written as Python does.
    """
    try:
        return json.dumps(value, separators=(",", ":")).encode("ascii")
    except (RecursionError, TypeError):
        raise ValueError("cannot be written as JSON") from None
