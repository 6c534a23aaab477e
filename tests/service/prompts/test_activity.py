"""Transfers in flight, and when the last one ended."""

from comfy_gateway.service.prompts.activity import Activity
from tests.fakes.clock import FakeClock


async def test_transfers_are_counted_for_each_backend(clock: FakeClock) -> None:
    activity = Activity(clock)
    activity.begin("a")
    activity.begin("a")
    activity.begin("b")
    assert (activity.in_flight("a"), activity.in_flight("b"), activity.in_flight("c")) == (2, 1, 0)
    activity.end("a")
    activity.end("b")
    assert (activity.in_flight("a"), activity.in_flight("b")) == (1, 0)


async def test_both_ends_of_a_transfer_are_use(clock: FakeClock) -> None:
    activity = Activity(clock)
    assert activity.last_s("a") is None
    await clock.advance(5)
    activity.begin("a")
    assert activity.last_s("a") == 5
    await clock.advance(5)
    activity.end("a")
    assert activity.last_s("a") == 10
    await clock.advance(5)
    activity.touch("a")
    assert activity.last_s("a") == 15


async def test_an_end_too_many_does_not_hide_the_next_transfer(clock: FakeClock) -> None:
    activity = Activity(clock)
    activity.end("a")
    activity.begin("a")
    assert activity.in_flight("a") == 1


async def test_a_backend_that_is_gone_is_forgotten_but_its_transfers_still_end(clock: FakeClock) -> None:
    activity = Activity(clock)
    activity.begin("a")
    activity.forget("a")
    activity.forget("unknown")
    assert activity.last_s("a") is None
    activity.end("a")
    assert activity.in_flight("a") == 0
