"""Blocking work off the event loop."""

import asyncio
from collections.abc import Callable


async def to_end[T](call: Callable[[], T]) -> T:
    """What `call()` returned in a thread. When this task is cancelled, the call is waited for first.

    `asyncio.to_thread` would leave a cancelled write running on a file that its owner then closes.
    Only for calls that end soon by themselves.
    """
    running = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()
        raise
