"""The file that a query names as ``/view`` reads it, and the same query for another file.

Two servers must not read it differently, so this follows ComfyUI's own reader: fields are separated by ``&``, ``+`` is
a space, the first value of a key counts, and a ``filename`` may end with ``[input]``, ``[output]`` or ``[temp]``, which
counts before ``type``.
"""

from typing import Final
from urllib.parse import quote, unquote_plus

from comfy_gateway.core.files.files import FileName

_NAMING: Final = frozenset({"filename", "subfolder", "type"})
_ANNOTATIONS: Final = {"[output]": "output", "[input]": "input", "[temp]": "temp"}


def file_of_query(query: str) -> FileName | None:
    """The file, or None when no ``filename`` is there. ``query`` is percent-encoded as it came, without ``?``."""
    said: dict[str, str] = {}
    for key, value in (_pair(part) for part in _parts(query)):
        said.setdefault(key, value)
    name, kind = said.get("filename", ""), said.get("type")
    for annotation, annotated in _ANNOTATIONS.items():
        if name.endswith(annotation):
            # ComfyUI cuts the character before it too, whatever it is.
            name, kind = name[: -len(annotation) - 1], annotated
    if not name:
        return None
    return FileName(name, said.get("subfolder", ""), "output" if kind is None else kind)


def naming(query: str, file: FileName) -> str:
    """The query for that file instead; everything else in it stays byte for byte."""
    others = [part for part in _parts(query) if _pair(part)[0] not in _NAMING]
    named = (("filename", file.filename), ("subfolder", file.subfolder), ("type", file.type))
    # A byte that was no UTF-8 goes on as it came.
    return "&".join(
        [*(f"{key}={quote(said, safe='', errors='surrogateescape')}" for key, said in named), *others]
    )


def _parts(query: str) -> list[str]:
    return [part for part in query.partition("#")[0].split("&") if part]


def _pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return unquote_plus(key), unquote_plus(value)
