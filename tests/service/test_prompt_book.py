"""The ledger of prompts in memory."""

import pytest

from comfy_gateway.core.prompts import Outcome, PromptRecord
from comfy_gateway.service.prompt_book import PromptBook
from tests.service.world import ALICE, BOB


def record(
    prompt_id: str, user: str | None = ALICE.key, sid: str = "s1", backend_id: str = "duty-0"
) -> PromptRecord:
    return PromptRecord(prompt_id, user, sid, backend_id)


@pytest.fixture
def book() -> PromptBook:
    return PromptBook()


def test_an_accepted_prompt_is_unfinished_until_it_ends(book: PromptBook) -> None:
    book.accept(record("p1"))
    assert book.unfinished() == [record("p1")]
    assert book.end("p1", Outcome.DONE)
    assert book.unfinished() == []
    found = book.find("p1")
    assert found is not None
    assert found.outcome is Outcome.DONE


def test_the_first_ending_counts(book: PromptBook) -> None:
    book.accept(record("p1"))
    assert book.end("p1", Outcome.ERROR)
    assert not book.end("p1", Outcome.DONE)
    found = book.find("p1")
    assert found is not None
    assert found.outcome is Outcome.ERROR


def test_an_ending_that_overtook_the_acceptance_is_applied_to_it(book: PromptBook) -> None:
    assert book.end("p1", Outcome.DONE)
    assert book.find("p1") is None
    book.accept(record("p1"))
    assert book.unfinished() == []
    found = book.find("p1")
    assert found is not None
    assert found.outcome is Outcome.DONE


def test_a_prompt_id_that_is_used_again_is_open_again(book: PromptBook) -> None:
    book.accept(record("p1"))
    book.end("p1", Outcome.DONE)
    book.accept(record("p1", backend_id="pod"))
    assert book.unfinished() == [record("p1", backend_id="pod")]


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
    book: PromptBook, narrowed: dict[str, object], expected: list[str]
) -> None:
    book.accept(record("p1"))
    book.accept(record("p2", sid="s2", backend_id="pod"))
    book.accept(record("p3", user=BOB.key, sid="s2"))
    book.accept(record("p4", user=None))
    assert [found.prompt_id for found in book.unfinished(**narrowed)] == expected  # type: ignore[arg-type]


def test_the_oldest_finished_prompts_are_forgotten_and_no_open_one() -> None:
    book = PromptBook(max_records=3)
    book.accept(record("open"))
    for number in range(5):
        book.accept(record(f"p{number}"))
        book.end(f"p{number}", Outcome.DONE)
    book.accept(record("last"))
    assert book.find("open") is not None
    assert [book.find(f"p{number}") is None for number in range(5)] == [True, True, True, True, False]


def test_more_open_prompts_than_records_are_all_kept() -> None:
    book = PromptBook(max_records=2)
    for number in range(5):
        book.accept(record(f"p{number}"))
    assert len(book.unfinished()) == 5


def test_endings_of_prompts_that_never_come_are_bounded() -> None:
    book = PromptBook(max_records=2)
    for number in range(5):
        book.end(f"p{number}", Outcome.DONE)
    book.accept(record("p0"))
    assert book.unfinished() == [record("p0")]
    book.accept(record("p4"))
    assert book.unfinished() == [record("p0")]


def test_watchers_are_told_of_acceptance_and_ending_until_they_stop(book: PromptBook) -> None:
    told: list[tuple[str, Outcome]] = []
    stop = book.watch(lambda seen: told.append((seen.prompt_id, seen.outcome)))
    book.accept(record("p1"))
    book.end("p1", Outcome.INTERRUPTED)
    book.end("p1", Outcome.DONE)
    stop()
    book.accept(record("p2"))
    assert told == [("p1", Outcome.ACCEPTED), ("p1", Outcome.INTERRUPTED)]
