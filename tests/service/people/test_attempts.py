"""Attempts to sign in: cheap for whoever was here before, slow for whoever guesses."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.sign_in import (
    BASIC,
    BUSY,
    DIRECTORY_DOWN,
    PasswordsUnavailable,
    wrong_credentials,
)
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.service.people.attempts import (
    MAX_WAITING,
    MAX_WAITING_OF_ONE_ADDRESS,
    AttemptLimits,
    Attempts,
)
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock

KEYS = Keys(bytes(range(32)))
WRONG = wrong_credentials(BASIC)


class Stand:
    """Attempts, and what was checked."""

    def __init__(self, limits: AttemptLimits = AttemptLimits(max_failures=3, window_s=60)) -> None:  # noqa: B008
        self.clock = FakeClock()
        self.checks: list[str] = []
        self.attempts = Attempts(
            digest=lambda *parts: KEYS.proof("test", *parts),
            off_loop=asyncio.to_thread,
            clock=self.clock,
            limits=limits,
        )

    async def attempt(
        self,
        password: str,
        *,
        name: str | None = "alice",
        address: str = "192.0.2.1",
        stamp: str = "v1",
        check: Callable[[], bool] | None = None,
    ) -> Refusal | None:
        def usual() -> bool:
            assert threading.current_thread() is not threading.main_thread()
            self.checks.append(password)
            return password == "right"

        return await self.attempts.prove(
            name or "", password, stamp=stamp, name=name, address=address, check=check or usual, wrong=WRONG
        )


@pytest.fixture
def stand() -> Stand:
    return Stand()


async def test_a_right_credential_is_checked_once(stand: Stand) -> None:
    assert [await stand.attempt("right") for _ in range(5)] == [None] * 5
    assert stand.checks == ["right"]


async def test_a_page_that_asks_many_times_at_once_has_it_checked_once(stand: Stand) -> None:
    answers = await asyncio.gather(*(stand.attempt("right") for _ in range(3 * MAX_WAITING)))
    assert set(answers) == {None}
    assert stand.checks == ["right"]
    wrong = await asyncio.gather(*(stand.attempt("wrong") for _ in range(3 * MAX_WAITING)))
    assert set(wrong) == {WRONG}
    assert stand.checks == ["right", "wrong"]


async def test_who_waits_for_somebody_that_goes_away_may_come_again(stand: Stand) -> None:
    go_on = threading.Event()
    first = asyncio.create_task(stand.attempt("right", check=lambda: go_on.wait(10)))
    second = asyncio.create_task(stand.attempt("right"))
    first.cancel()
    assert await second is BUSY
    go_on.set()
    assert await stand.attempt("right") is None


async def test_it_is_checked_again_when_what_it_is_held_against_has_changed(stand: Stand) -> None:
    await stand.attempt("right")
    assert await stand.attempt("right", stamp="v2") is None
    assert await stand.attempt("right", stamp="v2", check=lambda: False) is None, "v2 was found right"
    assert await stand.attempt("right", stamp="v3", check=lambda: False) is WRONG


async def test_a_directory_is_asked_again_after_a_while() -> None:
    stand = Stand(AttemptLimits(right_for_s=60))
    await stand.attempt("right")
    await stand.clock.advance(59)
    await stand.attempt("right")
    assert len(stand.checks) == 1
    await stand.clock.advance(2)
    assert await stand.attempt("right", check=lambda: False) is WRONG
    assert await stand.attempt("right") is WRONG, "what was right is not remembered as right any more"


async def test_guessing_ends_by_address_and_nothing_is_checked_any_more(stand: Stand) -> None:
    for n in range(3):
        assert await stand.attempt(f"guess {n}", name=f"user {n}") is WRONG
    refusal = await stand.attempt("right")
    assert refusal is not None
    assert refusal.status == 429
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 61
    assert "right" not in stand.checks
    assert await stand.attempt("right", address="192.0.2.2") is None, "somebody else is heard"


async def test_guessing_ends_by_name_wherever_it_comes_from(stand: Stand) -> None:
    for n in range(3):
        assert await stand.attempt(f"guess {n}", address=f"192.0.2.{n + 10}") is WRONG
    refusal = await stand.attempt("guess", address="192.0.2.99")
    assert refusal is not None
    assert refusal.status == 429
    assert await stand.attempt("right", name="bob", address="192.0.2.99") is None


async def test_many_guesses_at_once_are_no_way_around(stand: Stand) -> None:
    guesses = [stand.attempt(f"guess {n}", address="192.0.2.7") for n in range(8)]
    answers = await asyncio.gather(*guesses)
    assert len(stand.checks) <= 4, "three, and one that was under way"
    assert sum(answer is not None and answer.status == 429 for answer in answers) >= 4


async def test_an_ipv6_household_is_one_address(stand: Stand) -> None:
    for n in range(3):
        await stand.attempt(f"guess {n}", name=None, address=f"2001:db8:1:1::{n + 1:x}")
    refusal = await stand.attempt("guess", name=None, address="2001:db8:1:1:ffff::1")
    assert refusal is not None
    assert refusal.status == 429
    assert await stand.attempt("guess", name=None, address="2001:db8:1:2::1") is WRONG


async def test_a_wrong_credential_that_is_repeated_counts_once(stand: Stand) -> None:
    for _ in range(20):
        assert await stand.attempt("forgotten") is WRONG
    assert stand.checks == ["forgotten"]
    assert await stand.attempt("right") is None


async def test_who_was_right_before_is_not_held_up_by_somebody_who_guesses() -> None:
    stand = Stand(AttemptLimits(max_failures=3, right_for_s=10))
    await stand.attempt("right")
    for n in range(4):
        await stand.attempt(f"guess {n}")
    assert await stand.attempt("right") is None
    await stand.clock.advance(11)
    assert await stand.attempt("right") is None
    assert stand.checks[-1] == "right"


async def test_the_window_ends() -> None:
    stand = Stand(AttemptLimits(max_failures=1, window_s=1))
    await stand.attempt("guess")
    assert (await stand.attempt("right") or WRONG).status == 429

    async def heard() -> bool:
        return await stand.attempt("right") is None

    await wait_for(heard, "the end of a window of one second", deadline_s=4)


async def test_a_failure_without_a_check_counts_too(stand: Stand) -> None:
    for _ in range(3):
        assert stand.attempts.held_up("nowhere") is None
        stand.attempts.fail("nowhere")
    refusal = stand.attempts.held_up("nowhere")
    assert refusal is not None
    assert refusal.status == 429


async def test_a_directory_that_is_down_is_no_failure_of_the_user(stand: Stand) -> None:
    def down() -> bool:
        raise PasswordsUnavailable

    for _ in range(5):
        assert await stand.attempt("right", check=down) is DIRECTORY_DOWN
    assert await stand.attempt("right") is None


async def test_a_directory_that_says_nothing_is_given_up() -> None:
    stand = Stand(AttemptLimits(check_timeout_s=0.05))
    answered = threading.Event()
    try:
        assert await stand.attempt("right", check=lambda: answered.wait(10)) is DIRECTORY_DOWN
    finally:
        answered.set()


async def test_few_wait_and_fewer_of_one_address(stand: Stand) -> None:
    go_on = threading.Event()

    def slow() -> bool:
        return go_on.wait(10)

    def begin(n: int, address: str) -> asyncio.Task[Refusal | None]:
        return asyncio.create_task(stand.attempt(f"{address} {n}", name=None, address=address, check=slow))

    greedy = [begin(n, "192.0.2.1") for n in range(MAX_WAITING_OF_ONE_ADDRESS)]
    assert await stand.attempt("one more", address="192.0.2.1") is BUSY
    others = [begin(n, f"198.51.100.{n}") for n in range(MAX_WAITING - MAX_WAITING_OF_ONE_ADDRESS)]
    assert await stand.attempt("one more", address="203.0.113.1") is BUSY
    go_on.set()
    assert set(await asyncio.gather(*greedy, *others)) == {None}
    assert await stand.attempt("right") is None


async def test_what_is_remembered_is_bounded_and_guesses_push_nobody_out() -> None:
    stand = Stand(AttemptLimits(max_failures=100, max_remembered=2))
    await stand.attempt("right")
    for n in range(5):
        await stand.attempt(f"guess {n}")
    assert await stand.attempt("right") is None
    assert stand.checks.count("right") == 1
    assert len(stand.attempts._wrong) == 2


async def test_no_credential_is_kept(stand: Stand) -> None:
    await stand.attempt("a secret one", check=lambda: True)
    await stand.attempt("a wrong one")
    assert "a secret one" not in repr(vars(stand.attempts))
    assert "a wrong one" not in repr(vars(stand.attempts))
