"""What every kind of mirror offers: the bytes of one file from an offset on."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from yarl import URL


@dataclass(frozen=True)
class Answer:
    """`start` is the offset of the first byte that comes, `total_bytes` the size of the whole file or None.

    `validator` tells versions apart (an ETag or a date), None where the server has none.
    `blocks` may end early or raise Passing: the caller counts. `filename` is what the server calls the file.
    """

    start: int
    total_bytes: int | None
    validator: str | None
    blocks: AsyncGenerator[bytes]
    filename: str | None = None


class Source(Protocol):
    def open(
        self, url: URL, *, offset: int, only_if: str | None, page: bool = False
    ) -> AbstractAsyncContextManager[Answer]:
        """Raises Passing or Useless. With `only_if` an older version than that is not continued: `start` is 0 then.

        `page`: an HTML page may be what is wanted; otherwise it is taken for a sign-in or an error, and refused.
        """
        ...


@dataclass(frozen=True)
class Published:
    """What the publisher says about a file, apart from the file itself. `url` is where that version lies."""

    url: URL
    size_bytes: int | None = None
    sha256: str | None = None
    filename: str | None = None
    folder: str | None = None
