"""The tools that the tests stand on."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.conditions import wait_for, wait_for_blocking
from tests.programs import REQUIRE_ALL, require_program

TESTS = """
import pytest

def test_quick(): ...

@pytest.mark.long
def test_long(): ...
"""


@pytest.mark.parametrize(
    ("environment", "arguments", "passed", "left_out"),
    [
        ("0", [], 1, 1),
        ("1", [], 2, 0),
        ("0", ["test_them.py::test_long"], 1, 0),
        ("0", ["-m", "long"], 1, 1),
    ],
    ids=["quick", "--long", "asked for by name", "asked for by mark"],
)
def test_long_tests_run_only_where_they_are_asked_for(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    arguments: list[str],
    passed: int,
    left_out: int,
) -> None:
    monkeypatch.setenv("GATEWAY_TEST_LONG", environment)
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = long")
    pytester.makepyfile(test_them=TESTS)
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)
    outcome.assert_outcomes(passed=passed, deselected=left_out)


async def test_tasks_start_at_once_as_in_mitmproxy() -> None:
    started = []

    async def work() -> None:
        started.append(True)
        await asyncio.sleep(0)

    task = asyncio.create_task(work())
    assert started
    await task


def test_a_missing_program_skips_and_fails_where_all_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require_program("no-such-program")
    monkeypatch.setenv(REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require_program("no-such-program")
    assert require_program("bash").name == "bash"


def test_a_free_port_can_be_listened_on(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        pass


async def test_wait_for_returns_the_first_true_answer() -> None:
    answers = iter([None, "", "there"])

    async def answer() -> str | None:
        return next(answers)

    assert await wait_for(answer, "an answer") == "there"
    counted = iter([0, 0, 3])
    assert wait_for_blocking(lambda: next(counted), "a number") == 3


async def test_wait_for_says_what_it_waited_for_and_what_it_saw() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for the pod; last seen: None"):
        await wait_for(lambda: None, "the pod", deadline_s=0.05)
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for the pod; last seen: 0"):
        wait_for_blocking(lambda: 0, "the pod", deadline_s=0.05)


async def test_wait_for_cancels_a_condition_that_hangs() -> None:
    with pytest.raises(AssertionError, match="for an answer; last seen: 'never answered'"):
        await wait_for(asyncio.Event().wait, "an answer", deadline_s=0.05)


async def test_wait_for_lets_a_conditions_error_through() -> None:
    def broken() -> bool:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await wait_for(broken, "nothing")
