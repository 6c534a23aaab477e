"""Threads for calls that block, a bounded number of them."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

_END: Final = None


class LaneClosed(Exception):
    """The lane takes no more work; what it was given was not run."""


class Lane:
    """Runs work in at most ``width`` daemon threads, first come, first served.

    Not a ThreadPoolExecutor: the interpreter waits for that one's threads at its end, and a call into a
    socket that says nothing would hold a stopping gateway for as long as the server likes. Work whose future
    was cancelled before it began is never run.
    """

    def __init__(self, name: str, width: int) -> None:
        self._name = name
        self._width = width
        self._lock = threading.Lock()
        self._threads = 0
        self._is_closed = False
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def submit[T](self, work: Callable[[], T]) -> Future[T]:
        """Have ``work`` run in a thread of the lane. Raises LaneClosed after ``close``."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise LaneClosed
            self._jobs.put((future, work))
            if self._threads < self._width:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name} {self._threads}", daemon=True).start()
        return future

    def close(self) -> None:
        """What waits fails with LaneClosed; the threads end once their calls have come back, unawaited."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            threads = self._threads
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            # Not cancelled: that would look to the waiting task as if it were cancelled itself.
            if job is not _END and job[0].set_running_or_notify_cancel():
                job[0].set_exception(LaneClosed())
        for _ in range(threads):
            self._jobs.put(_END)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is _END:
                return
            future, work = job
            if future.set_running_or_notify_cancel():
                _settle(future, work)
            # Else the thread would keep the last answer, and the env in it, while it waits for more.
            del future, work, job


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        answer = work()
    except BaseException as error:  # noqa: BLE001 - carried over to whoever waits
        future.set_exception(error)
    else:
        future.set_result(answer)
