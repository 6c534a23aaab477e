"""Waiting for a condition with a bounded deadline, in place of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import overload

POLL_S = 0.015


@overload
async def wait_for[T](condition: Callable[[], Awaitable[T]], what: str, *, deadline_s: float = ...) -> T: ...
@overload
async def wait_for[T](condition: Callable[[], T], what: str, *, deadline_s: float = ...) -> T: ...
async def wait_for(condition: Callable[[], object], what: str, *, deadline_s: float = 10.0) -> object:
    """What `condition()` (awaited when it is awaitable) returned, as soon as that is true.

    It is called every 15 ms. Fails the test with `what` in its message when nothing true came within
    `deadline_s`; an awaitable that takes longer is cancelled. An exception of the condition goes on
    to the caller.
    """
    ends_at = time.monotonic() + deadline_s
    last: object = "never answered"
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                answer = condition()
                last = await answer if inspect.isawaitable(answer) else answer
                if last:
                    return last
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        if time.monotonic() < ends_at:
            raise  # the condition's own
    raise AssertionError(f"waited {deadline_s:g} s for {what}; last seen: {last!r}")


def wait_for_blocking[T](condition: Callable[[], T], what: str, *, deadline_s: float = 10.0) -> T:
    """`wait_for` for tests without an event loop."""
    ends_at = time.monotonic() + deadline_s
    while not (last := condition()):
        if time.monotonic() >= ends_at:
            raise AssertionError(f"waited {deadline_s:g} s for {what}; last seen: {last!r}")
        time.sleep(POLL_S)
    return last
