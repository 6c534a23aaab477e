"""Histories of several servers in one: nothing twice, nothing lost, nobody's order turned around."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.results.history import (
    Ended,
    Window,
    ended_ms,
    item_number,
    merge,
    number_of,
    plain_number,
    read_entries,
    shown_entry,
    shown_item,
)
from simulators.comfyui.prompt_queue import PromptQueue


def ended(prompt_id: str, at_ms: float | None = None) -> Ended:
    return Ended(prompt_id, {}, at_ms)


def ids(entries: list[Ended]) -> list[str]:
    return [entry.prompt_id for entry in entries]


# -- merging


def test_entries_stand_in_the_order_in_which_they_ended() -> None:
    duty = [ended("d1", 10), ended("d2", 30), ended("d3", 50)]
    pod = [ended("p1", 20), ended("p2", 40)]
    assert ids(merge([duty, pod])) == ["d1", "p1", "d2", "p2", "d3"]
    assert ids(merge([pod, duty])) == ["d1", "p1", "d2", "p2", "d3"]
    assert merge([]) == merge([[], []]) == []


def test_entries_without_a_time_stay_behind_those_before_them() -> None:
    assert ids(merge([[ended("old"), ended("a", 10), ended("b"), ended("c", 20)], [ended("x", 15)]])) == [
        "old",
        "a",
        "b",
        "x",
        "c",
    ]


def test_a_clock_that_was_set_back_does_not_turn_a_servers_order_around() -> None:
    assert ids(merge([[ended("a", 30), ended("b", 10)], [ended("x", 20)]])) == ["x", "a", "b"]


def test_what_stands_in_two_lists_is_told_once_as_the_first_has_it() -> None:
    kept = Ended("p1", {"outputs": {"kept": {}}}, 20)
    live = Ended("p1", {"outputs": {"live": {}}}, 20)
    assert merge([[ended("d1", 10), live], [kept]]) == [ended("d1", 10), live]


TIMES = st.none() | st.integers(0, 20)
LISTS = st.lists(
    st.lists(st.tuples(st.integers(0, 12), TIMES), max_size=8, unique_by=lambda row: row[0]), max_size=4
)


@given(LISTS)
def test_nothing_is_lost_and_every_list_keeps_its_order(rows: list[list[tuple[int, int | None]]]) -> None:
    lists = [[ended(str(name), at_ms) for name, at_ms in row] for row in rows]
    merged = ids(merge(lists))
    assert sorted(merged) == sorted({entry.prompt_id for row in lists for entry in row})
    seen: set[str] = set()
    for row in lists:
        own = [entry.prompt_id for entry in row if entry.prompt_id not in seen]
        seen |= set(own)
        assert [prompt_id for prompt_id in merged if prompt_id in own] == own


# -- windows

WINDOWS = st.builds(Window, st.none() | st.integers(-3, 12), st.integers(-3, 12))


@given(st.integers(0, 10), WINDOWS)
def test_a_window_is_what_a_server_would_answer(count: int, window: Window) -> None:
    queue = PromptQueue(lambda: None)
    queue.history = {str(number): {} for number in range(count)}
    expected = list(queue.page_of_history(window.max_items, window.offset))
    assert ids(window.of([ended(str(number)) for number in range(count)])) == expected


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), min_size=1, max_size=3), WINDOWS)
def test_each_server_is_asked_for_enough(rows: list[list[int]], window: Window) -> None:
    lists = [
        [ended(f"{position}-{index}", at_ms) for index, at_ms in enumerate(sorted(row))]
        for position, row in enumerate(rows)
    ]
    whole = window.of(merge(lists))
    assert window.of(merge([window.of_each().of(row) for row in lists])) == whole or not whole


@pytest.mark.parametrize(
    ("window", "query"),
    [
        (Window(), ""),
        (Window(64), "?max_items=64"),
        (Window(64, 0), "?max_items=64&offset=0"),
        (Window(None, 5), "?offset=5"),
    ],
)
def test_a_window_is_asked_for_as_comfyui_takes_it(window: Window, query: str) -> None:
    assert window.query() == query


# -- the shown form

ENTRY: dict[str, Any] = {
    "prompt": [
        7,
        "p1",
        {"9": {"class_type": "SaveImage"}},
        {"client_id": "upstream", "api_key_comfy_org": "s"},
        ["9"],
    ],
    "outputs": {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}},
    "status": {"status_str": "success", "completed": True, "messages": []},
    "meta": {"9": {"display_node": "9"}},
}


def test_an_entry_is_shown_with_alias_and_number_and_without_secrets() -> None:
    told = shown_entry(ENTRY, alias="private-1", number=12.0, sid="tab")
    assert told["prompt"] == [12, "p1", {"9": {"class_type": "SaveImage"}}, {"client_id": "tab"}, ["9"]]
    assert isinstance(told["prompt"][0], int)
    assert told["outputs"]["9"]["images"][0]["subfolder"] == "private-1"
    assert (told["status"], told["meta"]) == (ENTRY["status"], ENTRY["meta"])
    assert ENTRY["outputs"]["9"]["images"][0]["subfolder"] == "", "the server's own is not changed"
    assert ENTRY["prompt"][3]["api_key_comfy_org"] == "s"


def test_an_unknown_entry_keeps_its_number_and_its_client() -> None:
    told = shown_entry(ENTRY, alias="")
    assert told["prompt"][0] == 7
    assert told["prompt"][3]["client_id"] == "upstream"


@pytest.mark.parametrize("odd", [None, [], [1, 2], "text", {"prompt": 1}])
def test_items_and_entries_of_another_shape_stay_as_they_are(odd: Any) -> None:
    assert shown_item(odd, number=3) == odd
    assert shown_entry({"prompt": odd}, alias="p", number=3) == {"prompt": odd}


def test_what_stands_behind_the_five_of_an_item_is_left_out() -> None:
    assert shown_item([1, "p", {}, None, [], {"api_key_comfy_org": "s"}]) == [1, "p", {}, None, []]
    assert shown_item([1, "p", {}, {}]) == [1, "p", {}, {}]


def test_numbers() -> None:
    assert number_of(ENTRY) == 7
    assert item_number([-1.5, "p"]) == -1.5
    odds: tuple[Any, ...] = (None, {}, [], [True], ["1"], [None], [float("nan")])
    for odd in odds:
        assert item_number(odd) is None
    assert number_of("text") is None
    assert plain_number(2.5) == 2.5
    assert repr(plain_number(2.0)) == "2"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([["execution_start", {"timestamp": 5}], ["execution_success", {"timestamp": 9}]], 9),
        ([["execution_start", {}], ["x"], "text", ["y", 3], ["z", {"timestamp": "9"}]], None),
        ([], None),
        (None, None),
    ],
)
def test_when_a_prompt_ended_stands_in_its_messages(messages: Any, expected: float | None) -> None:
    assert ended_ms({"status": {"messages": messages}}) == expected
    assert ended_ms({"status": None}) is None
    assert ended_ms(None) is None


def test_entries_of_another_shape_are_left_out() -> None:
    assert list(read_entries({"a": {}, "b": 1, "c": None})) == [("a", {})]
    with pytest.raises(ValueError, match="no object"):
        list(read_entries([1]))
