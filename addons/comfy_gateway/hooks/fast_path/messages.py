"""Makes messages and events without looking at the types of their fields each time."""

from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from mitmproxy import hooks, http


@lru_cache(maxsize=256)
def _fields_of(event: type[hooks.Hook]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(event))  # type: ignore[arg-type] # every event is a dataclass


def _args(event: hooks.Hook) -> list[Any]:
    return [getattr(event, name) for name in _fields_of(type(event))]  # type: ignore[arg-type] # events hash by id


def _unchecked(_: http.MessageData) -> None:
    """What ``python -O`` makes of it: the check is for people who change mitmproxy."""


REPLACED: Final = (
    (hooks.Hook, "args", _args),
    (http.MessageData, "__post_init__", _unchecked),
)
"""Class, name and what takes its place."""
