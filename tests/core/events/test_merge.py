from typing import Any

import pytest

from comfy_gateway.core.events import merge


@pytest.mark.parametrize(
    ("data", "remaining"),
    [
        ({"status": {"exec_info": {"queue_remaining": 3}}, "sid": "x"}, 3),
        ({"status": {"exec_info": {"queue_remaining": 0}}}, 0),
        ({"status": {"exec_info": {"queue_remaining": None}}}, None),
        ({"status": {"exec_info": {"queue_remaining": True}}}, None),
        ({"status": {"exec_info": {}}}, None),
        ({"status": {"exec_info": 3}}, None),
        ({"status": None}, None),
        ({}, None),
    ],
)
def test_queue_remaining_is_read_where_it_is_told(data: dict[str, Any], remaining: int | None) -> None:
    assert merge.read_queue_remaining(data) == remaining


@pytest.mark.parametrize(
    ("counts", "total"), [([1, 2], 3), ([None, 2], 2), ([0], 0), ([None], None), ([], None)]
)
def test_the_total_is_the_sum_of_what_is_known(counts: list[int | None], total: int | None) -> None:
    assert merge.total_queue_remaining(counts) == total


def test_a_status_keeps_the_servers_words_and_gets_the_merged_count_and_the_clients_sid() -> None:
    latest = {
        "status": {"exec_info": {"queue_remaining": 1, "new": 5}, "more": True},
        "sid": "upstream",
        "x": 1,
    }

    data = merge.status_data(latest, 7, "own")

    assert data == {
        "status": {"exec_info": {"queue_remaining": 7, "new": 5}, "more": True},
        "sid": "own",
        "x": 1,
    }
    assert latest["sid"] == "upstream"
    assert latest["status"] == {"exec_info": {"queue_remaining": 1, "new": 5}, "more": True}


def test_a_later_status_names_no_sid() -> None:
    assert merge.status_data({"status": {}, "sid": "upstream"}, 2, None) == {
        "status": {"exec_info": {"queue_remaining": 2}}
    }


def test_a_status_without_a_count_stays_as_it_is() -> None:
    assert merge.status_data({"status": None, "sid": "upstream"}, None, "own") == {
        "status": None,
        "sid": "own",
    }


@pytest.mark.parametrize("status", [None, 3, {}, {"exec_info": [1]}])
def test_a_status_of_another_shape_gets_the_count_all_the_same(status: Any) -> None:
    data = merge.status_data({"status": status}, 2, None)

    assert data == {"status": {"exec_info": {"queue_remaining": 2}}}
