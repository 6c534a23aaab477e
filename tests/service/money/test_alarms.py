"""What people hear of, and how."""

import logging

import pytest

from comfy_gateway.core.errors import AlarmUnsent
from comfy_gateway.core.life.session import State
from comfy_gateway.core.money.alarms import Alarm, AlarmKind
from comfy_gateway.core.money.budget import Budget
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.service.money.alarms import MOST_WAITING, WAITS_S
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create
from tests.service.world import ALICE, BOB, World, with_rules


class Person:
    """Implements ``core.ports.AlarmSender``."""

    name = "address 1"

    def __init__(self, clock: FakeClock, *, fails: int = 0, takes_s: float = 0.0) -> None:
        self._clock = clock
        self._fails = fails
        self._takes_s = takes_s
        self.heard: list[tuple[str, str]] = []
        self.tries = 0

    async def send(self, title: str, text: str) -> None:
        """Fails as often as it was told."""
        self.tries += 1
        await self._clock.sleep(self._takes_s)
        if self.tries <= self._fails:
            raise AlarmUnsent("it was not taken")
        self.heard.append((title, text))


HELLO = Alarm(AlarmKind.CLOUD, "list", "pods could not be listed")


def watched(clock: FakeClock, *people: Person, **rules: object) -> World:
    """A gateway whose alarms these people hear."""
    world = World(clock, rules=with_rules(**rules), senders=people)
    world.run_loops()
    return world


async def test_an_alarm_is_in_the_log_counted_and_heard_by_all(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = Person(clock), Person(clock)
    world = watched(clock, one, other)
    world.alarms.tell(HELLO)
    await clock.settle()
    assert one.heard == other.heard == [("Comfy gateway: alarm (cloud)", "pods could not be listed")]
    assert world.told == [AlarmKind.CLOUD]
    assert [record.levelno for record in caplog.records if "pods could not be listed" in record.message] == [
        logging.ERROR
    ]
    await world.stop()


async def test_the_same_alarm_is_logged_each_time_and_sent_once(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person)
    for _ in range(3):
        world.alarms.tell(HELLO)
        await clock.advance(60)
    assert (len(world.told), len(person.heard)) == (3, 1)
    await world.stop()


async def test_what_was_not_taken_is_sent_again_and_given_up_in_the_end(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    patient, deaf = Person(clock, fails=2), Person(clock, fails=100)
    world = watched(clock, patient, deaf)
    world.alarms.tell(HELLO)
    await clock.advance(sum(WAITS_S[:2]) + 1)
    assert len(patient.heard) == 1
    await clock.advance(sum(WAITS_S))
    assert deaf.tries == len(WAITS_S) + 1
    assert "alarm (cloud) reached nobody at address 1: it was not taken" in caplog.text
    world.alarms.tell(Alarm(AlarmKind.ENDING, "pod1", "pod1 does not end"))
    await clock.settle()
    assert len(patient.heard) == 2
    await world.stop()


async def test_telling_waits_for_nobody_and_keeps_the_newest(clock: FakeClock) -> None:
    slow = Person(clock, takes_s=1)
    world = watched(clock, slow)
    for number in range(MOST_WAITING + 20):
        world.alarms.tell(Alarm(AlarmKind.ENDING, f"pod{number}", f"pod{number} does not end"))
    await clock.advance(MOST_WAITING + 30)
    texts = [text for _, text in slow.heard]
    assert texts[-1] == f"pod{MOST_WAITING + 19} does not end"
    assert len(texts) <= MOST_WAITING + 1
    await world.stop()


async def test_a_budget_that_is_nearly_and_then_wholly_spent_is_told(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person, budget=Budget(user_daily_usd=1.0))
    await world.ready()
    for _ in range(150):
        world.prompts(ALICE)
        await clock.advance(60)
    assert [title for title, _ in person.heard] == [
        "Comfy gateway: warning (spend)",
        "Comfy gateway: alarm (spend)",
    ]
    assert person.heard[0][1].startswith("named:alice: $0.80 of BUDGET_USER_DAILY_USD=1 were spent today")
    assert person.heard[1][1].endswith("BUDGET_USER_DAILY_USD is 1; pods paid from it are drained")
    await world.stop()


async def test_a_pod_that_does_not_end_is_told(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person)
    await world.ready()
    world.cloud.swallowed_terminations = 20
    await world.until(State.TERMINATING)
    await clock.advance(60)
    [(title, text)] = person.heard
    assert title == "Comfy gateway: alarm (ending)"
    assert "does not end after 5 tries and may cost money" in text
    await world.until(State.SHARED)
    await world.stop()


async def test_that_no_machine_is_to_be_had_is_told_as_a_warning(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person)
    world.cloud.creates.extend([Create.CAPACITY] * 2)
    world.burst()
    await world.until(State.COOLING)
    assert [title for title, _ in person.heard] == ["Comfy gateway: warning (capacity)"]
    await world.stop()


async def test_starts_that_fail_in_a_row_are_told(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person, market=MarketLimits(breaker_failures=2))
    world.cloud.creates.extend([Create.UNAUTHORIZED] * 2)
    world.burst(ALICE)
    world.burst(BOB)
    await clock.settle()
    assert person.heard == [
        ("Comfy gateway: alarm (starts)", "2 starts in a row have failed; no pod is bought for 300 s")
    ]
    await world.stop()


async def test_a_pod_that_is_ended_for_silence_is_told(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person)
    world.servers.usual.has_agent = False
    await world.ready()
    await world.until(State.SHARED)
    [(title, text)] = person.heard
    assert title == "Comfy gateway: alarm (silence)"
    assert "no telemetry and no work for" in text
    await world.stop()


async def test_an_idle_pod_is_no_news(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person)
    await world.ready()
    await world.until(State.SHARED)
    assert person.heard == []
    await world.stop()


async def test_a_cloud_that_says_nothing_for_minutes_is_told(clock: FakeClock) -> None:
    person = Person(clock)
    world = watched(clock, person)
    world.cloud.is_list_failing = True
    await clock.advance(290)
    assert person.heard == []
    await clock.advance(60)
    assert [title for title, _ in person.heard] == ["Comfy gateway: alarm (cloud)"]
    world.cloud.is_list_failing = False
    await clock.advance(30)
    world.cloud.is_list_failing = True
    await clock.advance(200)
    assert len(world.told) < 10
    await world.stop()
