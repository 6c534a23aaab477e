"""Which heads of requests are let in, judged by their bytes before anything has read them.

mitmproxy reads generously (single LF, folded lines, a CR or NUL inside a value) and passes on what it read. A
server behind us may read the same bytes in another way: that is how requests are smuggled. What is no plain HTTP/1 is
refused. A method in small letters too: some servers take ``head`` for ``HEAD``, which has no body in its answer.
"""

import re
from typing import Final

from comfy_gateway.core.requests.refusals import MALFORMED, Refusal

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 8000
"""ComfyUI's server takes 8190 bytes, and we add a prefix and a port."""
MAX_FIELDS: Final = 100
"""ComfyUI's server takes 128, and we add some."""
MAX_LENGTH_DIGITS: Final = 15
"""Of a Content-Length. More is beyond what servers count in."""

HEAD_TOO_LARGE: Final = Refusal(
    431,
    "head_too_large",
    "The head of the request is too large.",
    f"It may have {MAX_HEAD_BYTES} bytes, {MAX_FIELDS} fields and {MAX_LINE_BYTES} bytes in a line.",
)
LENGTH_TOO_LARGE: Final = Refusal(413, "body_too_large", "The request announces a body that nobody can take.")

_PLAIN: Final = re.compile(
    rb"[A-Z-]+ [!-~]+ HTTP/[0-9]\.[0-9]\r\n"
    rb"(?:[!-9;-~]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*"
    rb"\r\n"
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*[0-9]{%d}" % (MAX_LENGTH_DIGITS + 1), re.IGNORECASE)


def refuse_head(raw: bytes) -> Refusal | None:
    """Why a whole head, its empty line included, is not let in, or None."""
    lines = raw.split(b"\n")
    if len(raw) > MAX_HEAD_BYTES or len(lines) - 3 > MAX_FIELDS:
        return HEAD_TOO_LARGE
    if max(map(len, lines)) > MAX_LINE_BYTES:
        return HEAD_TOO_LARGE
    if not _PLAIN.fullmatch(raw):
        return MALFORMED
    return LENGTH_TOO_LARGE if _LENGTH.search(raw) else None
