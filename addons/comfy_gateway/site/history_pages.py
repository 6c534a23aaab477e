"""Reads the history of one server in parts that keep neither memory nor the event loop busy for long.

A history can have 10 000 entries with a whole workflow each. What is asked for without a small bound is read from the
oldest on, some megabytes at a time.
"""

import logging
from collections.abc import AsyncIterator
from typing import Final

from comfy_gateway.core import loose_json
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.core.results import history
from comfy_gateway.core.results.history import Ended, Window
from comfy_gateway.site.servers import Said, Servers, off_the_loop

logger = logging.getLogger(__name__)

AT_ONCE: Final = 500
"""So many entries are asked for in one go."""
FIRST_PAGE: Final = 64
MOST_PAGE: Final = 1000
PAGE_BYTES: Final = 4 * 1024 * 1024


class Unanswered(Exception):
    """The server gave no usable answer; what it said instead is in ``said``."""

    def __init__(self, said: Said) -> None:
        super().__init__("no usable answer")
        self.said = said


async def pages(
    servers: Servers, backend: Backend, window: Window, *, page_bytes: int = PAGE_BYTES
) -> AsyncIterator[list[Ended]]:
    """The entries of this window in their order, page by page, as the server has them. Raises Unanswered.

    A window that is counted from the end and too large to be read at once is read whole: its end is to be cut off.
    """
    if window.max_items is not None and window.max_items <= AT_ONCE:
        said = await servers.ask(backend, "/history" + window.query())
        if not said.is_too_much:
            yield await _entries(said)
            return
    start, size = 0, FIRST_PAGE
    stop = window.max_items if window.offset >= 0 else None
    held: list[Ended] = []
    seen: set[str] = set()
    while stop is None or start < stop:
        count = size if stop is None else min(size, stop - start)
        said = await servers.ask(backend, f"/history?max_items={count}&offset={start}")
        if said.is_too_much and count > 1:
            size = max(count // 8, 1)
            continue
        entries = await _entries(said)
        if held and not seen.isdisjoint(ended.prompt_id for ended in entries):
            # An old server knows no offset: it tells its newest each time.
            yield await _entries(await servers.ask(backend, "/history"))
            return
        if held:
            yield held
            held = []
        fresh = [ended for ended in entries if ended.prompt_id not in seen]
        seen.update(ended.prompt_id for ended in fresh)
        if len(entries) < count:
            yield fresh
            return
        if start:
            yield fresh
        else:
            held = fresh  # until it is clear that the server knows where it is
        start += count
        size = max(1, min(MOST_PAGE, page_bytes * count // max(len(said.body), 1)))
    yield held


async def entries_in(said: Said) -> list[Ended] | None:
    """The entries in an answer of ``/history``, or None where it is no usable one."""
    if not said.is_ok:
        return None
    try:
        return await off_the_loop(len(said.body), lambda: _read(said))
    except ValueError:
        logger.warning("the history of %s has an unknown shape", said.backend.id)
        return None


async def _entries(said: Said) -> list[Ended]:
    entries = await entries_in(said)
    if entries is None:
        raise Unanswered(said)
    return entries


def _read(said: Said) -> list[Ended]:
    found = history.read_entries(loose_json.read(said.body))
    return [Ended(prompt_id, entry, history.ended_ms(entry)) for prompt_id, entry in found]
