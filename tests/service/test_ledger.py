"""The ledger of prompts in memory."""

import pytest

from comfy_gateway.core.prompts import Outcome, PromptRecord
from comfy_gateway.service.ledger import Ledger
from tests.service.world import ALICE, BOB


def record(
    prompt_id: str, user: str | None = ALICE.key, sid: str = "s1", backend_id: str = "duty-0"
) -> PromptRecord:
    return PromptRecord(prompt_id, user, sid, backend_id)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_an_accepted_prompt_is_unfinished_until_it_ends(ledger: Ledger) -> None:
    ledger.accept(record("p1"))
    assert ledger.unfinished() == [record("p1")]
    assert ledger.end("p1", Outcome.DONE)
    assert ledger.unfinished() == []
    found = ledger.find("p1")
    assert found is not None
    assert found.outcome is Outcome.DONE


def test_a_prompt_that_runs_has_not_ended(ledger: Ledger) -> None:
    ledger.begin("p1")
    ledger.accept(record("p1"))
    ledger.begin("p1")
    assert [found.outcome for found in ledger.unfinished()] == [Outcome.RUNNING]
    ledger.end("p1", Outcome.DONE)
    ledger.begin("p1")
    found = ledger.find("p1")
    assert found is not None
    assert found.outcome is Outcome.DONE


def test_the_first_ending_counts(ledger: Ledger) -> None:
    ledger.accept(record("p1"))
    assert ledger.end("p1", Outcome.ERROR)
    assert not ledger.end("p1", Outcome.DONE)
    found = ledger.find("p1")
    assert found is not None
    assert found.outcome is Outcome.ERROR


def test_an_ending_that_overtook_the_acceptance_is_applied_to_it(ledger: Ledger) -> None:
    assert ledger.end("p1", Outcome.DONE)
    assert ledger.find("p1") is None
    ledger.accept(record("p1"))
    assert ledger.unfinished() == []
    found = ledger.find("p1")
    assert found is not None
    assert found.outcome is Outcome.DONE


def test_a_prompt_id_that_is_used_again_is_open_again(ledger: Ledger) -> None:
    ledger.accept(record("p1"))
    ledger.end("p1", Outcome.DONE)
    ledger.accept(record("p1", backend_id="pod"))
    assert ledger.unfinished() == [record("p1", backend_id="pod")]


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({}, ["p1", "p2", "p3", "p4"]),
        ({"user": ALICE}, ["p1", "p2"]),
        ({"user": BOB}, ["p3"]),
        ({"sid": "s2"}, ["p2", "p3"]),
        ({"backend_id": "pod"}, ["p2"]),
        ({"user": ALICE, "backend_id": "duty-0"}, ["p1"]),
        ({"user": ALICE, "sid": "s9"}, []),
    ],
    ids=str,
)
def test_unfinished_prompts_are_narrowed_oldest_first(
    ledger: Ledger, narrowed: dict[str, object], expected: list[str]
) -> None:
    ledger.accept(record("p1"))
    ledger.accept(record("p2", sid="s2", backend_id="pod"))
    ledger.accept(record("p3", user=BOB.key, sid="s2"))
    ledger.accept(record("p4", user=None))
    assert [found.prompt_id for found in ledger.unfinished(**narrowed)] == expected  # type: ignore[arg-type]


def test_the_oldest_finished_prompts_are_forgotten_and_no_open_one() -> None:
    ledger = Ledger(max_records=3)
    ledger.accept(record("open"))
    for number in range(5):
        ledger.accept(record(f"p{number}"))
        ledger.end(f"p{number}", Outcome.DONE)
    ledger.accept(record("last"))
    assert ledger.find("open") is not None
    assert [ledger.find(f"p{number}") is None for number in range(5)] == [True, True, True, True, False]


def test_more_open_prompts_than_records_are_all_kept() -> None:
    ledger = Ledger(max_records=2)
    for number in range(5):
        ledger.accept(record(f"p{number}"))
    assert len(ledger.unfinished()) == 5


def test_endings_of_prompts_that_never_come_are_bounded() -> None:
    ledger = Ledger(max_records=2)
    for number in range(5):
        ledger.end(f"p{number}", Outcome.DONE)
    ledger.accept(record("p0"))
    assert ledger.unfinished() == [record("p0")]
    ledger.accept(record("p4"))
    assert ledger.unfinished() == [record("p0")]


def test_watchers_are_told_of_acceptance_and_ending_until_they_stop(ledger: Ledger) -> None:
    told: list[tuple[str, Outcome]] = []
    stop = ledger.watch(lambda seen: told.append((seen.prompt_id, seen.outcome)))
    ledger.accept(record("p1"))
    ledger.end("p1", Outcome.INTERRUPTED)
    ledger.end("p1", Outcome.DONE)
    stop()
    ledger.accept(record("p2"))
    assert told == [("p1", Outcome.ACCEPTED), ("p1", Outcome.INTERRUPTED)]
