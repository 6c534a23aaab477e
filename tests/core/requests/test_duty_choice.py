"""Which duty server a user is put on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.requests.duty_choice import pick

ORDER = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("load", "stuck_to", "chosen"),
    [
        ({"a": 0, "b": 0, "c": 0}, None, "a"),
        ({"a": 2, "b": 1, "c": 1}, None, "b"),
        ({"a": 2, "b": 1, "c": 0}, None, "c"),
        ({"a": 9, "b": 0, "c": 0}, "a", "a"),
        ({"a": None, "b": 4, "c": 3}, "a", "c"),
        ({"a": None, "b": 4, "c": 3}, None, "c"),
        ({"a": None, "b": None, "c": None}, None, "a"),
        ({"a": None, "b": None, "c": None}, "b", "b"),
        ({"a": 1, "b": 0, "c": 0}, "gone", "b"),
        ({"a": None, "b": None, "c": None}, "gone", "a"),
        ({"a": 1, "b": 1}, "c", "a"),
        ({}, None, "a"),
    ],
    ids=[
        "equal queues: the first",
        "the shortest, the earlier of equals",
        "the shortest",
        "stays in a long queue",
        "leaves a dead one",
        "never a dead one",
        "all dead: home",
        "all dead: stays",
        "was on a server that is no more",
        "was on one that is no more, all dead",
        "was on one that was never probed",
        "nothing is known",
    ],
)
def test_choice(load: dict[str, int | None], stuck_to: str | None, chosen: str) -> None:
    assert pick(ORDER, load, stuck_to) == chosen


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=3, max_size=3),
    st.sampled_from([None, *ORDER, "gone"]),
)
def test_a_healthy_server_is_chosen_wherever_there_is_one(
    loads: list[int | None], stuck_to: str | None
) -> None:
    load = dict(zip(ORDER, loads, strict=True))
    chosen = pick(ORDER, load, stuck_to)
    assert chosen in ORDER
    assert load[chosen] is not None or all(queue is None for queue in loads)
