"""The owner of background tasks."""

import asyncio

import pytest

from comfy_gateway.service.tasks import Tasks


async def test_a_task_bears_its_owners_and_its_own_name() -> None:
    tasks = Tasks("gateway")
    task = tasks.start(asyncio.sleep(60), name="cloud watch")
    assert task.get_name() == "gateway: cloud watch"
    await tasks.aclose()


async def test_closing_cancels_and_awaits_what_runs() -> None:
    tasks = Tasks("test")
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    task = tasks.start(work(), name="work")
    await tasks.aclose()
    assert task.cancelled()
    assert log == ["cleaned up"]


async def test_a_failure_is_logged_with_the_tasks_name_and_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks("test")

    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError("why")

    task = tasks.start(work(), name="work")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    [record] = caplog.records
    assert "'test: work' failed: KeyError" in record.getMessage()
    assert record.exc_info
    await tasks.aclose()


async def test_a_task_that_ends_at_once_is_not_kept() -> None:
    tasks = Tasks("test")

    async def work() -> None:
        pass

    tasks.start(work(), name="work")
    assert not tasks._running
    await tasks.aclose()


async def test_nothing_starts_after_closing_and_no_coroutine_is_left_unawaited() -> None:
    tasks = Tasks("test")
    await tasks.aclose()
    with pytest.raises(RuntimeError, match="late was not started"):
        tasks.start(asyncio.sleep(60), name="late")


async def test_a_task_may_close_its_own_owner() -> None:
    tasks = Tasks("test")
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        await tasks.aclose()
        done.set()

    tasks.start(work(), name="work")
    async with asyncio.timeout(5):
        await done.wait()
