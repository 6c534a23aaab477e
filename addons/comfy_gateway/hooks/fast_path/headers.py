"""Looks a header up in one pass, without an exception for one that is not there.

mitmproxy makes a decoded copy of every name for each look-up, and a gateway asks for twenty of them at each request.
Names, folding and errors are as in ``mitmproxy.http.Headers``.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from mitmproxy.http import Headers

_MISSING: Final[Any] = object()


@lru_cache(maxsize=512)
def _lowered(name: str | bytes) -> bytes:
    return (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()


def _values(headers: Headers, name: str | bytes) -> list[bytes]:
    wanted = _lowered(name)
    length = len(wanted)
    return [value for key, value in headers.fields if len(key) == length and key.lower() == wanted]


def _get_all(headers: Headers, name: str | bytes) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in _values(headers, name)]


def _get(headers: Headers, name: str | bytes, default: Any = None) -> Any:
    found = _values(headers, name)
    return b", ".join(found).decode("utf-8", "surrogateescape") if found else default


def _get_item(headers: Headers, name: str | bytes) -> str:
    found: str | None = _get(headers, name)
    if found is None:
        raise KeyError(name)
    return found


def _contains(headers: Headers, name: object) -> bool:
    return isinstance(name, str | bytes) and bool(_values(headers, name))


def _pop(headers: Headers, name: str | bytes, default: Any = _MISSING) -> Any:
    found = _get(headers, name)
    if found is None:
        if default is _MISSING:
            raise KeyError(name)
        return default
    wanted = _lowered(name)
    headers.fields = tuple(field for field in headers.fields if field[0].lower() != wanted)
    return found


LOOKUPS: Final[Mapping[str, object]] = {
    "get_all": _get_all,
    "get": _get,
    "__getitem__": _get_item,
    "__contains__": _contains,
    "pop": _pop,
}
"""Methods of ``Headers`` and what takes their place."""
