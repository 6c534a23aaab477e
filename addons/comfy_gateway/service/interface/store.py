"""Files of the front end in memory, each with its compressed forms, up to a number of bytes."""

import asyncio
import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import brotli
import zstandard

from comfy_gateway.core.interface.files import Told
from comfy_gateway.core.requests.content_coding import coding_for

SMALL_BYTES: Final = 32 * 1024
"""Compressed in less time than a thread takes to begin."""
_COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "br": lambda body: bytes(brotli.compress(body, quality=7)),
    "zstd": lambda body: zstandard.compress(body, 9),
    "gzip": lambda body: gzip.compress(body, 6, mtime=0),
}


@dataclass(eq=False)
class Kept:
    """One file as the server told it last."""

    path: str
    validator: str
    content_type: str
    body: bytes = field(repr=False)
    digest: str
    known: Mapping[str, str]
    """Headers by which the server tells whether it still holds."""
    asked_s: float
    """Monotonic: when the question was put that it answers."""
    of_front_end: str = ""
    """The state of the front end that it is known to belong to."""
    coded: dict[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, path: str, told: Told, asked_s: float) -> "Kept":
        """``told`` must be keepable."""
        assert told.validator is not None
        known = {}
        if "etag" in told.headers:
            known["If-None-Match"] = told.headers["etag"]
        if "last-modified" in told.headers:
            known["If-Modified-Since"] = told.headers["last-modified"]
        return cls(
            path=path,
            validator=told.validator,
            content_type=told.headers.get("content-type", "application/octet-stream"),
            body=told.body,
            digest=hashlib.sha256(told.body).hexdigest()[:32],
            known=known,
            asked_s=asked_s,
        )

    @property
    def size_bytes(self) -> int:
        """In memory, with all its forms."""
        return len(self.body) + sum(len(coded) for coded in self.coded.values())

    async def coded_for(self, accept_encoding: str) -> tuple[str, bytes]:
        """Coding and bytes for a client. Each form is made once."""
        coding = coding_for(accept_encoding, self.content_type, len(self.body))
        if not coding:
            return "", self.body
        if coding not in self.coded:
            self.coded[coding] = await compressed(coding, self.body)
        return coding, self.coded[coding]


async def compressed(coding: str, body: bytes) -> bytes:
    """In a thread where it would keep the event loop busy."""
    compress = _COMPRESS[coding]
    return compress(body) if len(body) < SMALL_BYTES else await asyncio.to_thread(compress, body)


class InterfaceStore:
    """What was used least recently goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def get(self, path: str) -> Kept | None:
        """The file as it was told last, or None."""
        found = self._kept.get(path)
        if found is not None:
            self._kept.move_to_end(path)
        return found

    def put(self, kept: Kept) -> None:
        """In place of what was there. What is larger than everything may be is not kept."""
        self._kept[kept.path] = kept
        self._kept.move_to_end(kept.path)
        self.trim()

    def drop(self, path: str) -> None:
        """Forget a file that is no longer there."""
        self._kept.pop(path, None)

    def trim(self) -> None:
        """Forget files until the rest is small enough; also after a form was added to one."""
        size_bytes = sum(kept.size_bytes for kept in self._kept.values())
        while size_bytes > self._most_bytes and self._kept:
            _, gone = self._kept.popitem(last=False)
            size_bytes -= gone.size_bytes

    def all(self) -> list[Kept]:
        """The least recently used first."""
        return list(self._kept.values())
