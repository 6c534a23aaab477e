"""Lists of prompts as tables."""

from typing import Any

import pytest

from comfy_gateway.core.readable.tables import MAX_ROWS, is_list, read_list

NODES = {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {}}}


def test_the_queue_is_told_in_its_order() -> None:
    queue = {
        "queue_running": [[7, "run", NODES, {"client_id": "tab"}, []]],
        "queue_pending": [[8, "wait", {}, {}, []]],
    }
    assert [line.split() for line in read_list(queue).splitlines()[2:]] == [
        ["running", "7", "run", "2", "tab"],
        ["waiting", "8", "wait"],
    ]


def test_an_empty_queue_is_a_table_without_rows() -> None:
    assert read_list({"queue_running": [], "queue_pending": []}).splitlines()[0].split() == [
        "state", "number", "prompt", "nodes", "client_id",
    ]  # fmt: skip


def test_the_history_says_how_long_each_took_and_what_it_made() -> None:
    files = [{"filename": f"{name}.png", "subfolder": "", "type": "output"} for name in "abcde"]
    history = {
        "one": {
            "outputs": {"9": {"images": files, "text": ["x"], "animated": None}},
            "status": {
                "status_str": "success",
                "messages": [
                    ["execution_start", {"timestamp": 1000}],
                    ["execution_success", {"timestamp": 3500}],
                    5,
                ],
            },
        },
        "two": {"outputs": {}, "status": {"status_str": "error", "messages": []}},
        "three": {"outputs": None},
    }
    assert [line.split(maxsplit=3) for line in read_list(history).splitlines()[2:]] == [
        ["one", "done", "2.5", "a.png, b.png, c.png and 2 more"],
        ["two", "error"],
        ["three", "done"],
    ]


def test_jobs_are_told_by_what_they_say_of_themselves() -> None:
    assert "pending" in read_list({"jobs": [{"id": "j", "status": "pending"}]})


def test_a_long_list_is_cut() -> None:
    queue = {"queue_running": [], "queue_pending": [[n, str(n), {}, {}, []] for n in range(MAX_ROWS + 3)]}
    assert read_list(queue).endswith("… 3 more")


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"queue_running": []},
        {"queue_running": 1, "queue_pending": []},
        {"jobs": [1]},
        {"x": {"y": 1}},
    ],
)
def test_anything_else_is_no_list(document: Any) -> None:
    assert not is_list(document)
    with pytest.raises(ValueError, match="list"):
        read_list(document)
