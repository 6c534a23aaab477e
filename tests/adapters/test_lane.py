"""Blocking work in a bounded number of threads that nobody has to wait for."""

import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError

import pytest

from comfy_gateway.adapters.lane import Lane, LaneClosed
from tests.conditions import wait_for_blocking


def test_answers_and_errors_come_back() -> None:
    lane = Lane("t", 2)
    assert lane.submit(lambda: 1 + 1).result(5) == 2
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 // 0).result(5)
    assert lane.submit(lambda: "still here").result(5) == "still here"
    lane.close()


def test_no_more_threads_than_the_width_work_at_once() -> None:
    lane = Lane("width", 3)
    begun, may_end = threading.Semaphore(0), threading.Event()

    def work() -> bool:
        begun.release()
        return may_end.wait(5)

    futures = [lane.submit(work) for _ in range(10)]
    for _ in range(3):
        assert begun.acquire(timeout=5)
    assert not begun.acquire(timeout=0.05)
    may_end.set()
    assert all(future.result(5) for future in futures)
    lane.close()


def test_work_cancelled_before_its_turn_is_never_run() -> None:
    lane = Lane("cancel", 1)
    may_end = threading.Event()
    first = lane.submit(lambda: may_end.wait(5))
    ran: list[int] = []
    second = lane.submit(lambda: ran.append(2))
    third = lane.submit(lambda: ran.append(3))
    assert second.cancel()
    may_end.set()
    assert first.result(5)
    third.result(5)
    assert ran == [3]
    with pytest.raises(CancelledError):
        second.result(0)
    lane.close()


def test_a_closed_lane_runs_nothing_that_waits_and_takes_nothing_new() -> None:
    lane = Lane("close", 1)
    begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        may_end.wait(5)
        return "done"

    running, waiting = lane.submit(work), lane.submit(lambda: "too late")
    assert begun.wait(5)
    lane.close()
    lane.close()
    with pytest.raises(LaneClosed):
        waiting.result(5)
    with pytest.raises(LaneClosed):
        lane.submit(lambda: None)
    may_end.set()
    assert running.result(5) == "done"
    wait_for_blocking(
        lambda: not any(thread.name.startswith("close ") for thread in threading.enumerate()),
        "the end of the lane's thread",
    )


def test_a_thread_keeps_nothing_of_the_work_it_has_done() -> None:
    class Answer:
        pass

    lane = Lane("keep", 1)
    answer = weakref.ref(lane.submit(Answer).result(5))
    lane.submit(lambda: None).result(5)
    assert answer() is None
    lane.close()


def test_the_interpreter_does_not_wait_for_work_that_hangs() -> None:
    program = (
        "import threading; from comfy_gateway.adapters.lane import Lane;"
        "begun = threading.Event();"
        "Lane('hang', 1).submit(lambda: (begun.set(), threading.Event().wait()));"
        "begun.wait(5)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20, env={"PYTHONPATH": "addons"})
