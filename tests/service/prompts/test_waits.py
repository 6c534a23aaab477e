"""Predicted waits, and pods that they earn."""

import logging

import pytest

from comfy_gateway.core.life.session import State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.service.prompts.waits import Waits
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB, World, with_rules

PATIENT = 60.0


class Duty:
    """One shared server that runs a prompt after the other, as the ledger hears of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waits = Waits(ledger=world.ledger, order_of=lambda record: record.number, clock=world.clock)
        self._count = 0

    def accept(self, user: UserId, number: float | None = None) -> PromptRecord:
        """A prompt is accepted, and counted as submission does it."""
        self._count += 1
        backend = self.world.routes.current(user)
        name = f"duty-prompt-{self._count}"
        self.world.ledger.accept(
            PromptRecord(name, user.key, "sid", backend.id, number=self._count if number is None else number)
        )
        record = self.world.ledger.find(name)
        assert record is not None
        self.world.bursts.prompt_accepted(user, wait_s=lambda: self.waits.of(record))
        return record

    async def run(self, user: UserId, seconds: float, *, outcome: Outcome = Outcome.DONE) -> None:
        """A prompt runs from its acceptance on."""
        record = self.accept(user)
        self.world.ledger.begin(record.prompt_id)
        await self.world.clock.advance(seconds)
        self.world.ledger.end(record.prompt_id, outcome)


@pytest.fixture
def duty(clock: FakeClock) -> Duty:
    return Duty(World(clock, rules=with_rules(threshold_count=1000, burst_wait_s=PATIENT)))


async def test_nothing_is_predicted_before_a_few_have_run(duty: Duty) -> None:
    await duty.run(BOB, 20)
    await duty.run(BOB, 20, outcome=Outcome.ERROR)
    await duty.run(BOB, 20, outcome=Outcome.INTERRUPTED)
    assert duty.waits.of(duty.accept(BOB)) is None
    await duty.world.stop()


async def test_a_prompt_waits_for_those_that_come_before_it_and_for_what_runs(duty: Duty) -> None:
    for _ in range(3):
        await duty.run(BOB, 20)
    running, first, second = duty.accept(BOB), duty.accept(ALICE), duty.accept(BOB)
    duty.world.ledger.begin(running.prompt_id)
    await duty.world.clock.advance(5)
    in_front = duty.accept(BOB, number=-1)
    assert [duty.waits.of(record) for record in (in_front, first, second)] == [15, 35, 55]
    await duty.world.stop()


async def test_a_wait_that_is_too_long_starts_a_pod(duty: Duty, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        await duty.run(BOB, 20)
    for _ in range(3):
        duty.accept(BOB)
    duty.accept(ALICE)
    assert duty.world.state(ALICE) is State.SHARED  # 60 s are what she puts up with
    duty.accept(ALICE)
    assert duty.world.state(ALICE) is State.BOOTING
    assert "a prompt that will wait about 80 s on duty" in caplog.text
    await duty.world.until(State.READY, ALICE)
    assert duty.world.state(BOB) is State.SHARED
    await duty.world.stop()


async def test_no_wait_starts_a_pod_unless_that_is_wanted(clock: FakeClock) -> None:
    duty = Duty(World(clock, rules=with_rules(threshold_count=1000)))
    for _ in range(3):
        await duty.run(BOB, 200)
    for _ in range(50):
        duty.accept(ALICE)
    assert duty.world.state(ALICE) is State.SHARED
    await duty.world.stop()
