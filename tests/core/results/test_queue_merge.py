"""Queues of several servers in one."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.results.queue_merge import (
    Queue,
    ahead_of,
    anonymous_item,
    merge,
    places,
    remaining_for,
    veiled_id,
)


def item(prompt_id: str, number: float = 0) -> list[Any]:
    return [number, prompt_id, {}, {}, []]


def test_what_runs_stands_as_the_servers_have_it_and_what_waits_by_its_number() -> None:
    duty = Queue([item("d1", 1)], [item("d4", 4), item("d2", 2)])
    pod = Queue([item("p5", 5)], [item("p3", 3), item("front", -1)])
    merged = merge([duty, pod])
    assert [entry[1] for entry in merged.running] == ["d1", "p5"]
    assert [entry[1] for entry in merged.pending] == ["front", "d2", "p3", "d4"]
    assert merged.document() == {"queue_running": merged.running, "queue_pending": merged.pending}
    assert list(merged.ids()) == ["d1", "p5", "front", "d2", "p3", "d4"]


def test_a_prompt_that_moves_is_told_once_and_rather_as_running() -> None:
    assert merge([Queue([], [item("p", 1)]), Queue([item("p", 2)], [])]) == Queue([item("p", 2)], [])
    assert merge([Queue([], [item("p", 1)]), Queue([], [item("p", 2)])]) == Queue([], [item("p", 1)])


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([], []),
        ([None, None], [1, 2]),
        ([None, None, 7], [5, 6, 7]),
        ([7, None], [7, 8]),
        ([None, 3, None, 4, None, None, 7, 8, None], [2, 3, 3.5, 4, 5, 6, 7, 8, 9]),
        ([-1.5, None, -1], [-1.5, -1.25, -1]),
    ],
)
def test_places_of_others_have_numbers_that_say_where_they_are_alone(
    numbers: list[float | None], told: list[float]
) -> None:
    assert places(numbers) == told


def test_what_is_ahead_is_counted_in_the_order_of_the_server() -> None:
    """Alice has queued three before bob came, and after her first it is his turn."""
    waiting = [PromptRecord(one, one[0], "", "duty-0", number=n) for n, one in enumerate(["a1", "a2", "b1"])]
    turns = {"a1": 0.0, "b1": 0.5, "a2": 1.0}
    assert remaining_for("b", waiting) == 3
    assert remaining_for("b", waiting, lambda one: turns[one.prompt_id]) == 2


def test_the_place_of_another_tells_its_number_alone() -> None:
    key = b"k" * 16
    veiled = veiled_id("p", key)
    assert anonymous_item(3.0, veiled) == [3, veiled, {}, {}, []]
    assert str(UUID(veiled)) == veiled == veiled_id("p", key)
    assert len({veiled, veiled_id("q", key), veiled_id("p", b"another"), veiled_id("\ud800", key)}) == 4


def test_who_has_nothing_there_waits_for_nothing_and_the_others_for_all_up_to_their_last() -> None:
    waiting = [
        PromptRecord("a2", "alice", "", "duty-0", number=2),
        PromptRecord("b1", "bob", "", "duty-0", number=1, outcome=Outcome.RUNNING),
        PromptRecord("n4", None, "", "duty-0", number=4),
        PromptRecord("a-1", "alice", "", "duty-0", number=-1),
        PromptRecord("b3", "bob", "", "duty-0", number=3),
    ]
    found = {who: remaining_for(who, waiting) for who in ("alice", "bob", None, "carol")}
    assert found == {"alice": 3, "bob": 4, None: 5, "carol": 0}
    assert remaining_for("alice", []) == 0


IDS = st.lists(st.integers(0, 9).map(str), max_size=5, unique=True)


@given(st.lists(st.tuples(IDS, IDS), max_size=3))
def test_every_prompt_is_told_exactly_once(rows: list[tuple[list[str], list[str]]]) -> None:
    queues = [
        Queue([item(one) for one in running], [item(one) for one in pending]) for running, pending in rows
    ]
    told = list(merge(queues).ids())
    assert len(told) == len(set(told))
    assert set(told) == {one for queue in queues for one in queue.ids()}


@pytest.mark.parametrize(
    "odd", [None, [], "queue", {}, {"queue_running": []}, {"queue_running": 1, "queue_pending": []}]
)
def test_what_is_no_queue_is_an_error(odd: Any) -> None:
    with pytest.raises(ValueError, match="queue"):
        Queue.read(odd)


def test_items_of_another_shape_are_left_out() -> None:
    document = {
        "queue_running": [item("a"), [1, "b"], "c", [1, 2, {}, {}]],
        "queue_pending": [None, item("d")],
    }
    assert list(Queue.read(document).ids()) == ["a", "d"]


def test_ahead_are_those_that_end_before_the_users_next_one() -> None:
    running = PromptRecord("r", "bob", "tab", "duty", number=9, outcome=Outcome.RUNNING)
    waiting = [
        PromptRecord(name, user, "tab", "duty", number=number)
        for name, user, number in (("1", "bob", 1), ("2", "alice", 2), ("3", "alice", 3))
    ]
    assert ahead_of("alice", [*waiting, running]) == 2
    assert ahead_of("bob", [*waiting, running]) == 0
    assert ahead_of("carol", [*waiting, running]) is None
