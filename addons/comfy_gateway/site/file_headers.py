"""Headers of an answer that is a file, as ComfyUI's ``/view`` sets them (0.3.64, ``server.py``)."""

import mimetypes
from typing import Final

_RUN_BY_BROWSERS: Final = frozenset(
    {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
)
PLAIN_BYTES: Final = "application/octet-stream"


def content_type(filename: str) -> str:
    """By the name's suffix; plain bytes for what a browser would run."""
    kind = mimetypes.guess_type(filename)[0] or PLAIN_BYTES
    return PLAIN_BYTES if kind in _RUN_BY_BROWSERS else kind


def disposition(filename: str) -> str:
    """``filename="…"``, without what would end the text or the header."""
    return (
        'filename="'
        + "".join(letter for letter in filename if letter.isprintable() and letter not in '"\\')
        + '"'
    )
