"""The one owner of background tasks: named, logged when they fail, cancelled and awaited at the end."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Tasks:
    """Keeps the tasks of one part of the gateway. The only place that calls ``asyncio.create_task``."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run ``work`` in the background. After ``aclose`` nothing is started and the coroutine is closed unrun.

        Raises RuntimeError after ``aclose``.
        """
        if self._is_closed:
            work.close()
            raise RuntimeError(f"{self._owner} has ended; {name} was not started")
        task = asyncio.create_task(work, name=f"{self._owner}: {name}")
        if not task.done():  # an eager task may be over already
            self._running.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "task %r failed: %s",
                task.get_name(),
                type(error).__name__,
                exc_info=error,
            )

    async def aclose(self) -> None:
        """Cancel what runs and wait until all of it has ended."""
        self._is_closed = True
        current = asyncio.current_task()
        pending = [task for task in self._running if task is not current]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
