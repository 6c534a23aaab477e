"""What a listener is told costs a bounded number of bytes."""

import random
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_gateway.core.events.differences import Differences


def applied(known: dict[str, dict[str, Any]], told: bytes | None) -> None:
    for entry in orjson.loads(told or b"[]"):
        id_ = entry.pop("id")
        if entry.get("is_gone"):
            del known[id_]
        else:
            known.setdefault(id_, {}).update(entry)


def test_all_is_told_once_and_then_what_is_different() -> None:
    differences = Differences()
    first = differences.first({"a": {"state": "ready", "queue": 1}, "b": {"state": "shared"}}, 0)
    assert orjson.loads(first) == [{"id": "a", "state": "ready", "queue": 1}, {"id": "b", "state": "shared"}]
    assert differences.next({"a": {"state": "ready", "queue": 1}, "b": {"state": "shared"}}, 1) is None
    told = differences.next({"a": {"state": "ready", "queue": None}, "c": {"state": "booting"}}, 2)
    assert told is not None
    assert sorted(orjson.loads(told), key=lambda one: str(one["id"])) == [
        {"id": "a", "queue": None},
        {"id": "b", "is_gone": True},
        {"id": "c", "state": "booting"},
    ]


def test_what_does_not_fit_is_told_later_as_it_is_then_and_states_go_first() -> None:
    differences = Differences(bytes_per_s=20, burst_bytes=40)
    differences.first({"a": {"state": "x", "queue": 0}, "b": {"state": "x", "queue": 0}}, 0)
    now = {"a": {"state": "x", "queue": 1}, "b": {"state": "y", "queue": 0}}
    assert orjson.loads(differences.next(now, 0) or b"") == [{"id": "b", "state": "y"}]
    assert differences.next(now, 0.1) is None
    now["a"] = {"state": "x", "queue": 7}
    assert orjson.loads(differences.next(now, 1) or b"") == [{"id": "a", "queue": 7}]


def test_nobody_is_told_last_for_ever() -> None:
    differences = Differences(bytes_per_s=30, burst_bytes=30)
    things = {name: {"queue": 0} for name in "abcdefgh"}
    differences.first(things, 0)
    heard: set[str] = set()
    for second in range(1, 20):
        things = {name: {"queue": second} for name in things}
        heard |= {one["id"] for one in orjson.loads(differences.next(things, second) or b"[]")}
    assert heard == set("abcdefgh")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), max_size=4), max_size=8))
def test_who_listens_to_the_end_knows_what_is(pictures: list[dict[str, int]]) -> None:
    differences = Differences(bytes_per_s=10, burst_bytes=60)
    known: dict[str, dict[str, Any]] = {}
    applied(known, differences.first({}, 0))
    now_s = 0.0
    things: dict[str, dict[str, Any]] = {}
    for picture in pictures:
        things = {id_: {"state": value} for id_, value in picture.items()}
        now_s += 1
        applied(known, differences.next(things, now_s))
    for _ in range(60):
        now_s += 1
        applied(known, differences.next(things, now_s))
    assert known == things


def test_two_hundred_sessions_that_never_rest_cost_less_than_five_megabytes_an_hour() -> None:
    """Every session changes every second here, which is worse than any telemetry. A stream lasts 15 minutes."""
    rng = random.Random(1)
    sessions = {
        f"session/{number:032}": {
            "user": f"user{number:026}",
            "kind": "named",
            "state": "ready",
            "since": "2026-11-24T11:00:00.123456Z",
            "source": "private",
            "pod": f"comfy-gw-user{number}0a1b2c3d-a1",
            "pod_id": f"pod{number:011}",
            "gpu": "NVIDIA GeForce RTX 4090",
            "cost_per_hour_usd": 0.69,
            "ordered_at": "2026-11-24T11:00:00.123456Z",
            "cause": "ComfyUI and the agent answer",
            "verdict": "busy",
            "prompts": 1,
            "utilization_percent": 50.0,
            "queue": 3,
            "idle_ends_at": "2026-11-24T11:10:00Z",
            "times_kept": 0,
        }
        for number in range(200)
    }
    differences = Differences()
    quarter_bytes = len(differences.first(sessions, 0))
    for second in range(1, 900):
        for id_, fields in sessions.items():
            sessions[id_] = fields | {"utilization_percent": float(rng.randrange(100)), "queue": second}
        told = differences.next(sessions, second)
        quarter_bytes += 0 if told is None else len(told) + len(b"event: changes\ndata: \n\n")
    assert 1_000_000 < 4 * quarter_bytes < 5_000_000
