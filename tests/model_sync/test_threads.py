"""A call in a thread is never left running on what its owner then closes."""

import asyncio
import threading

import pytest

from model_sync.threads import to_end


async def test_a_cancelled_call_is_waited_for_however_often_it_is_cancelled() -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        assert may_end.wait(10)
        ended.set()

    waiting = asyncio.create_task(to_end(call))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(2):
        waiting.cancel()
        done, _pending = await asyncio.wait([waiting], timeout=0.05)
        assert not done
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_a_call_gives_its_result_and_its_error() -> None:
    assert await to_end(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await to_end(lambda: 1 // 0)
