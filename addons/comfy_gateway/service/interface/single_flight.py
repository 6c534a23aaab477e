"""Work that many wait for and that is done once."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from comfy_gateway.service.tasks import Tasks


class SingleFlight[K: Hashable, T]:
    """Whoever asks while the work for a key is under way gets its result. The work outlives who asked for it."""

    def __init__(self, tasks: Tasks, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._under_way: dict[K, asyncio.Future[T]] = {}

    async def do(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result, or what the work raised."""
        found = self._under_way.get(key)
        if found is None:
            found = self._under_way[key] = asyncio.get_running_loop().create_future()
            try:
                self._tasks.start(self._run(key, work, found), name=f"{self._name} {key}")
            except RuntimeError:
                found.cancel()
                self._under_way.pop(key, None)
                raise
        return await asyncio.shield(found)

    async def _run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]], told: asyncio.Future[T]) -> None:
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 - told to all who wait
            told.set_exception(error)
            told.exception()  # nobody may be waiting any more
        else:
            told.set_result(result)
        finally:
            if self._under_way.get(key) is told:
                del self._under_way[key]
            if not told.done():
                told.cancel()
