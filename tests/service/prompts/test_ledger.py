"""The ledger of prompts in memory."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from comfy_gateway.core.prompts.prompts import LedgerRow, Outcome, PromptRecord
from comfy_gateway.service.prompts.journal import Journal
from comfy_gateway.service.prompts.ledger import Foreign, InFlight, Ledger, New, Same
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import FakeLedgerStore, ledger_in_memory
from tests.service.world import ALICE, BOB


def record(
    prompt_id: str, user: str | None = ALICE.key, sid: str = "s1", backend_id: str = "duty-0"
) -> PromptRecord:
    return PromptRecord(prompt_id, user, sid, backend_id)


@pytest.fixture
def store() -> FakeLedgerStore:
    return FakeLedgerStore()


@pytest.fixture
def ledger(clock: FakeClock, store: FakeLedgerStore) -> Ledger:
    return Ledger(clock, Journal(store, clock))


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


def test_the_oldest_finished_prompts_are_forgotten_and_no_open_one(clock: FakeClock) -> None:
    ledger = ledger_in_memory(clock, max_records=3)
    ledger.accept(record("open"))
    for number in range(5):
        ledger.accept(record(f"p{number}"))
        ledger.end(f"p{number}", Outcome.DONE)
    ledger.accept(record("last"))
    assert ledger.find("open") is not None
    assert [ledger.find(f"p{number}") is None for number in range(5)] == [True, True, True, True, False]


def test_more_open_prompts_than_records_are_all_kept(clock: FakeClock) -> None:
    ledger = ledger_in_memory(clock, max_records=2)
    for number in range(5):
        ledger.accept(record(f"p{number}"))
    assert len(ledger.unfinished()) == 5


def test_endings_of_prompts_that_never_come_are_bounded(clock: FakeClock) -> None:
    ledger = ledger_in_memory(clock, max_records=2)
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


def test_the_moments_of_a_prompt_are_noted(ledger: Ledger, clock: FakeClock) -> None:
    ledger.accept(record("p1"))
    ledger.begin("p1")
    ledger.end("p1", Outcome.DONE)
    found = ledger.find("p1")
    assert found is not None
    assert (found.started_at, found.ended_at) == (clock.now(), clock.now())


def test_numbers_rise(ledger: Ledger) -> None:
    assert [ledger.next_number() for _ in range(3)] == [1, 2, 3]


def ended_numbers(ledger: Ledger, *numbers: float) -> list[float]:
    """Prompts with these numbers end in this order; returns the numbers that they then have."""
    ended = []
    for place, number in enumerate(numbers):
        ledger.accept(replace(record(f"{number}-{place}"), number=number))
        ledger.end(f"{number}-{place}", Outcome.DONE)
        found = ledger.find(f"{number}-{place}")
        assert found is not None
        ended.append(found.number)
    return ended


def test_in_the_history_numbers_rise_in_the_order_of_the_endings(ledger: Ledger) -> None:
    assert ended_numbers(ledger, 1, 2) == [1, 2]
    late = ended_numbers(ledger, 6, 3, 4, -5, 5, 6)
    assert late == sorted(late)
    assert len(set(late)) == 6
    assert max(late) < 7
    assert ended_numbers(ledger, 7) == [7], "the next in turn keeps its own"
    assert ended_numbers(ledger, 1e300, 8)[1] > 1e300


def test_numbers_go_on_above_those_that_a_server_has_counted_alone(ledger: Ledger) -> None:
    ledger.accept(replace(record("before"), number=ledger.next_number()))
    ledger.saw_number(5000.5)
    assert ledger.next_number() == 5002
    ledger.end("before", Outcome.DONE)
    found = ledger.find("before")
    assert found is not None
    assert found.number > 5000.5
    ledger.saw_number(1e300)
    assert ledger.next_number() == 5003, "a client has chosen that one"


def test_a_users_prompts_are_listed_in_order_until_they_are_forgotten(clock: FakeClock) -> None:
    ledger = ledger_in_memory(clock, max_records=3)
    ledger.accept(record("p1"))
    ledger.accept(record("p2", backend_id="pod"))
    ledger.accept(record("p3", user=None))
    ledger.end("p1", Outcome.DONE)
    assert [found.prompt_id for found in ledger.of_user(ALICE.key)] == ["p1", "p2"]
    assert [found.prompt_id for found in ledger.of_user(ALICE.key, backend_id="pod")] == ["p2"]
    assert [found.prompt_id for found in ledger.of_user(None)] == ["p3"]
    assert ledger.of_user(BOB.key) == []
    ledger.accept(record("p4", user=BOB.key))
    assert [found.prompt_id for found in ledger.of_user(ALICE.key)] == ["p2"]
    assert len(ledger.of_user(BOB.key)) == 1


async def test_what_memory_has_forgotten_is_recalled(clock: FakeClock, store: FakeLedgerStore) -> None:
    ledger = ledger_in_memory(clock, store, max_records=1)
    store.rows = {"old": LedgerRow(record("old")), "doubtful": LedgerRow(record("doubtful"), False)}
    ledger.accept(record("p1"))
    assert await ledger.recall("p1") == record("p1")
    assert await ledger.recall("old") == record("old")
    assert await ledger.recall("doubtful") is None
    assert await ledger.recall("unknown") is None
    store.is_down = True
    assert await ledger.recall("old") is None


# -- replays


async def test_a_prompt_that_moves_begins_anew_on_the_other_server(ledger: Ledger) -> None:
    told: list[PromptRecord] = []
    ledger.accept(record("p1", backend_id="pod"))
    ledger.begin("p1")
    ledger.watch(told.append)
    moved = ledger.move("p1", "duty-0")
    assert moved == replace(record("p1", backend_id="duty-0"), replays=1)
    assert told == [moved]
    assert ledger.unfinished(backend_id="duty-0") == [moved]
    assert ledger.unfinished(backend_id="pod") == []


async def test_a_prompt_that_has_ended_does_not_move(ledger: Ledger) -> None:
    ledger.accept(record("p1", backend_id="pod"))
    ledger.end("p1", Outcome.LOST)
    assert ledger.move("p1", "duty-0").backend_id == "pod"
    with pytest.raises(KeyError):
        ledger.move("p2", "duty-0")


# -- reservations


async def written(ledger: Ledger, given: PromptRecord, body: bytes = b"{}") -> None:
    """Reserve a prompt and write it down, as it is done just before it is sent."""
    assert ledger.reserve(given) == New()
    assert await ledger.write_down(given, body, stored_body=body) == New()


async def test_a_reserved_id_is_held_until_it_is_confirmed(ledger: Ledger) -> None:
    await written(ledger, record("p1"))
    assert ledger.find("p1") is None
    assert ledger.unfinished() == []
    again = ledger.reserve(record("p1"))
    assert isinstance(again, InFlight)
    assert ledger.reserve(record("p1", user=BOB.key)) == Foreign()
    assert ledger.reserve(record("p1", user=None)) == Foreign()
    confirmed = ledger.confirm("p1", node_errors={"7": "no such output"})
    assert confirmed == replace(record("p1"), node_errors={"7": "no such output"})
    assert again.settled is not None
    assert await again.settled == confirmed
    assert ledger.reserve(record("p1")) == Same(confirmed)
    assert ledger.reserve(record("p1", user=BOB.key)) == Foreign()
    assert ledger.confirm("p1") == confirmed, "a second answer changes nothing"


async def test_a_discarded_id_is_free_again_for_everybody(ledger: Ledger) -> None:
    await written(ledger, record("p1"))
    waiting = ledger.reserve(record("p1"))
    ledger.discard("p1")
    assert isinstance(waiting, InFlight)
    assert waiting.settled is not None
    assert await waiting.settled is None
    assert ledger.reserve(record("p1", user=BOB.key)) == New()
    ledger.discard("never reserved")


async def test_requests_without_identity_share_an_id(ledger: Ledger) -> None:
    await written(ledger, record("p1", user=None))
    ledger.confirm("p1")
    assert isinstance(ledger.reserve(record("p1", user=None)), Same)


async def test_where_it_goes_is_what_is_written_down_last(ledger: Ledger, store: FakeLedgerStore) -> None:
    assert ledger.reserve(record("p1", backend_id="")) == New()
    await ledger.write_down(record("p1", backend_id="pod"), b"{}", stored_body=b"{}")
    confirmed = ledger.confirm("p1")
    assert confirmed is not None
    assert confirmed.backend_id == "pod"


async def test_events_that_overtake_the_answer_are_applied_to_it(ledger: Ledger, clock: FakeClock) -> None:
    await written(ledger, record("p1"))
    told: list[PromptRecord] = []
    ledger.watch(told.append)
    ledger.begin("p1")
    await clock.advance(2)
    assert ledger.end("p1", Outcome.DONE)
    assert not ledger.end("p1", Outcome.DONE)
    assert told == []
    confirmed = ledger.confirm("p1")
    assert confirmed is not None
    assert confirmed.outcome is Outcome.DONE
    assert confirmed.started_at == START
    assert confirmed.ended_at == START + timedelta(seconds=2)
    assert told == [confirmed]


async def test_a_server_that_gives_an_id_of_its_own_is_believed(
    ledger: Ledger, store: FakeLedgerStore
) -> None:
    await written(ledger, record("ours"))
    waiting = ledger.reserve(record("ours"))
    ledger.begin("theirs")
    confirmed = ledger.confirm("ours", answered_id="theirs")
    assert confirmed is not None
    assert (confirmed.prompt_id, confirmed.outcome) == ("theirs", Outcome.RUNNING)
    assert ledger.find("ours") is None
    assert isinstance(waiting, InFlight)
    assert waiting.settled is not None
    assert await waiting.settled == confirmed
    assert await ledger.body("theirs") is None


@pytest.mark.parametrize("theirs", ["of bob", "on its way", "a\r\nb", "x" * 300])
async def test_a_server_cannot_give_an_id_that_is_taken_or_none(ledger: Ledger, theirs: str) -> None:
    ledger.accept(record("of bob", BOB.key))
    await written(ledger, record("on its way", BOB.key))
    await written(ledger, record("ours"))
    confirmed = ledger.confirm("ours", answered_id=theirs)
    assert confirmed == record("ours")
    assert ledger.find("of bob") == record("of bob", BOB.key)
    assert isinstance(ledger.reserve(record("on its way", BOB.key)), InFlight)


async def test_an_answer_that_was_not_heard_leaves_a_doubt_until_it_is_settled(ledger: Ledger) -> None:
    await written(ledger, record("p1"))
    assert ledger.doubtful() == []
    ledger.doubt("p1")
    assert ledger.doubtful() == [record("p1")]
    assert isinstance(ledger.reserve(record("p1")), InFlight)
    ledger.confirm("p1")
    assert ledger.doubtful() == []
    ledger.doubt("p1")
    assert ledger.doubtful() == []


PROOFS: dict[str, tuple[Callable[[Ledger], object], Outcome]] = {
    "its beginning": (lambda ledger: ledger.begin("p1"), Outcome.RUNNING),
    "its ending": (lambda ledger: ledger.end("p1", Outcome.ERROR), Outcome.ERROR),
}


@pytest.mark.parametrize("is_told_before", [True, False])
@pytest.mark.parametrize(("tell", "outcome"), PROOFS.values(), ids=PROOFS.keys())
async def test_an_event_of_a_doubtful_prompt_proves_that_it_was_accepted(
    ledger: Ledger, tell: Callable[[Ledger], object], outcome: Outcome, is_told_before: bool
) -> None:
    await written(ledger, record("p1"))
    if is_told_before:
        tell(ledger)
    ledger.doubt("p1")
    if not is_told_before:
        tell(ledger)
    found = ledger.find("p1")
    assert found is not None
    assert found.outcome is outcome
    assert ledger.doubtful() == []


# -- bodies


async def test_a_body_is_kept_until_the_prompt_has_ended(ledger: Ledger) -> None:
    await written(ledger, record("p1"), b"the body")
    assert await ledger.body("p1") is None, "not accepted yet"
    ledger.confirm("p1")
    ledger.move("p1", "duty-1")
    assert await ledger.body("p1") == b"the body"
    ledger.end("p1", Outcome.DONE)
    assert await ledger.body("p1") is None


async def test_bodies_beyond_the_bound_are_left_to_the_database(
    clock: FakeClock, store: FakeLedgerStore
) -> None:
    ledger = Ledger(clock, Journal(store, clock), max_body_bytes=10)
    for number in range(4):
        given = record(f"p{number}")
        assert ledger.reserve(given) == New()
        await ledger.write_down(given, b"whole", stored_body=b"less")
        ledger.confirm(given.prompt_id)
    assert [await ledger.body(f"p{number}") for number in range(4)] == [b"less", b"less", b"whole", b"whole"]


# -- the history


def done(ledger: Ledger, prompt_id: str, user: str | None = ALICE.key) -> None:
    ledger.accept(replace(record(prompt_id, user), position=ledger.next_number()))
    ledger.end(prompt_id, Outcome.DONE)
    ledger.keep_entry(prompt_id, {"outputs": prompt_id})


async def test_entries_are_listed_last_ended_first(ledger: Ledger, clock: FakeClock) -> None:
    for prompt_id in ("p1", "p2", "p3"):
        done(ledger, prompt_id)
        await clock.advance(1)
    done(ledger, "of bob", BOB.key)
    ledger.keep_entry("unknown", {})
    listed = await ledger.entries(ALICE.key, limit=10)
    assert [entry for _, entry in listed] == [{"outputs": id_} for id_ in ("p3", "p2", "p1")]
    assert [found.prompt_id for found, _ in await ledger.entries(ALICE.key, limit=2)] == ["p3", "p2"]
    before = await ledger.entries(ALICE.key, limit=10, before=listed[1][0])
    assert [found.prompt_id for found, _ in before] == ["p1"]
    assert await ledger.entry("p1") == {"outputs": "p1"}
    assert await ledger.entry("unknown") is None


async def test_what_a_user_forgets_stays_hidden_and_only_his_own_does(ledger: Ledger) -> None:
    for prompt_id in ("p1", "p2"):
        done(ledger, prompt_id)
    done(ledger, "of bob", BOB.key)
    ledger.accept(record("open"))
    ledger.forget(ALICE.key, ["p1", "of bob", "open", "unknown"])
    assert await ledger.entry("p1") is None
    assert [found.prompt_id for found, _ in await ledger.entries(ALICE.key, limit=10)] == ["p2"]
    assert await ledger.entry("of bob") == {"outputs": "of bob"}
    hidden = {found.prompt_id: found.is_hidden for found in ledger.of_user(ALICE.key)}
    assert hidden == {"p1": True, "p2": False, "open": False}
    ledger.forget(ALICE.key)
    assert await ledger.entries(ALICE.key, limit=10) == []
    assert len(ledger.unfinished()) == 1


def test_a_watcher_that_fails_keeps_nobody_else_from_hearing(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[PromptRecord] = []

    def fail(_record: PromptRecord) -> None:
        raise KeyError("a bug")

    ledger.watch(fail)
    ledger.watch(told.append)
    ledger.accept(record("p1"))
    assert told == [record("p1")]
    assert "a bug" in caplog.text
