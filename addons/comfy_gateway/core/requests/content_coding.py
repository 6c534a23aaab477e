"""Which content coding an answer has, and what a browser's copy of it is called."""

import re
from typing import Final

CODINGS: Final = ("br", "zstd", "gzip")
"""The best first. Browsers offer the first two to HTTPS and to loopback only."""
WORTHWHILE_BYTES: Final = 512
"""What is smaller gains less than the header costs."""

_QUALITY: Final = re.compile(r"q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)", re.IGNORECASE)
_COMPRESSIBLE: Final = re.compile(
    r"(?:text/|application/(?:(?:x-)?javascript|json|manifest\+json|wasm|xml)|image/svg|font/(?:ttf|otf))",
    re.IGNORECASE,
)
_TAG: Final = re.compile(r'"([^"]*)"')


def coding_for(accept_encoding: str, content_type: str, size_bytes: int) -> str:
    """The coding of CODINGS that the client takes and that pays, or an empty text for none."""
    if size_bytes < WORTHWHILE_BYTES or not _COMPRESSIBLE.match(content_type):
        return ""
    taken = {}
    for part in accept_encoding.split(","):
        name, _, parameter = part.partition(";")
        quality = _QUALITY.search(parameter)
        taken[name.strip().lower()] = 1.0 if quality is None else float(quality[1])
    every = taken.get("*", 0.0)
    return next((coding for coding in CODINGS if taken.get(coding, every) > 0), "")


def entity_tag(digest: str, coding: str) -> str:
    """A strong ETag. Each coding has its own, for its bytes differ."""
    return f'"{digest}-{coding}"' if coding else f'"{digest}"'


def is_known_to(if_none_match: str, digest: str) -> bool:
    """Whether the client has this content already, in whatever coding."""
    return any(tag.partition("-")[0] == digest for tag in _TAG.findall(if_none_match))
