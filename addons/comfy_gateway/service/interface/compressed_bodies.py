"""Long answers that many get word for word, each compressed once.

An answer is known by its own bytes and by nothing else, so nobody gets another's, and none is older than it is.
"""

import asyncio
import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import brotli
import zstandard

from comfy_gateway.core.requests.content_coding import WORTHWHILE_BYTES

MOST_BYTES: Final = 32 * 1024 * 1024
"""Of compressed answers in memory."""
_QUICKLY: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "br": lambda body: bytes(brotli.compress(body, quality=4)),
    "zstd": lambda body: zstandard.compress(body, 3),
    "gzip": lambda body: gzip.compress(body, 5, mtime=0),
}


class CompressedBodies:
    """What was used least recently goes first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    async def digest(self, body: bytes) -> str:
        """By which a copy of this body is known."""
        if len(body) < WORTHWHILE_BYTES * 128:
            return _digest(body)
        return await asyncio.to_thread(_digest, body)

    async def coded(self, body: bytes, digest: str, coding: str) -> bytes:
        """The body in one of ``content_coding.CODINGS``."""
        key = (digest, coding)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = await asyncio.to_thread(_QUICKLY[coding], body)
            size_bytes = sum(len(kept) for kept in self._kept.values())
            while size_bytes > self._most_bytes:
                _, gone = self._kept.popitem(last=False)
                size_bytes -= len(gone)
        else:
            self._kept.move_to_end(key)
        return found


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
