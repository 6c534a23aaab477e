from typing import Any

import orjson
import pytest

from comfy_gateway.core.events import making_up
from comfy_gateway.core.events.making_up import MadeUp
from comfy_gateway.core.events.stories import Story
from comfy_gateway.core.prompts.prompts import Outcome

START = ["execution_start", {"prompt_id": "p", "timestamp": 1}]
CACHED = ["execution_cached", {"nodes": [], "prompt_id": "p", "timestamp": 2}]
SUCCESS = ["execution_success", {"prompt_id": "p", "timestamp": 3}]
ERROR = ["execution_error", {"prompt_id": "p", "node_id": "4", "exception_message": "boom", "timestamp": 3}]
INTERRUPTED = ["execution_interrupted", {"prompt_id": "p", "node_id": "4", "timestamp": 3}]
RELEASE = ["executing", {"node": None, "prompt_id": "p"}]


def entry(*messages: list[Any], status: str = "success") -> dict[str, Any]:
    return {
        "prompt": [0, "p", {}, {}, []],
        "outputs": {"9": {"images": []}, "10": {"text": ["x"]}},
        "meta": {"9": {"node_id": "9", "display_node": "8"}},
        "status": {"status_str": status, "completed": status == "success", "messages": list(messages)},
    }


def executed(node: str, display_node: str, output: Any) -> list[Any]:
    return ["executed", {"node": node, "display_node": display_node, "output": output, "prompt_id": "p"}]


EXECUTED = [executed("9", "8", {"images": []}), executed("10", "10", {"text": ["x"]})]


def said(made_up: MadeUp) -> list[list[Any]]:
    contents = [orjson.loads(frame.payload) for frame in made_up.frames]
    return [[content["type"], content["data"]] for content in contents]


def test_a_prompt_nobody_heard_of_is_told_whole_in_comfyuis_order() -> None:
    made_up = making_up.from_history("p", entry(START, CACHED, SUCCESS), Story("duty-0"))

    assert said(made_up) == [START, CACHED, *EXECUTED, SUCCESS, RELEASE]
    assert made_up.outcome is Outcome.DONE


def test_what_was_told_is_not_told_again() -> None:
    story = Story("duty-0", has_begun=True, executed={"9"})

    made_up = making_up.from_history("p", entry(START, CACHED, SUCCESS), story)

    assert said(made_up) == [EXECUTED[1], SUCCESS, RELEASE]


def test_after_the_verdict_only_the_release_is_left() -> None:
    story = Story("duty-0", has_begun=True, executed={"9", "10"}, has_verdict=True)

    assert said(making_up.from_history("p", entry(START, CACHED, SUCCESS), story)) == [RELEASE]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [(ERROR, Outcome.ERROR), (INTERRUPTED, Outcome.INTERRUPTED)],
    ids=["error", "interrupted"],
)
def test_a_bad_end_is_told_in_the_servers_own_words(verdict: list[Any], outcome: Outcome) -> None:
    story = Story("duty-0", has_begun=True, executed={"9", "10"})

    made_up = making_up.from_history("p", entry(START, verdict, status="error"), story)

    assert said(made_up) == [verdict, RELEASE]
    assert made_up.outcome is outcome


@pytest.mark.parametrize(
    "status", [None, {}, {"messages": None}, {"messages": ["x", [1, 2]]}, {"status_str": "success"}]
)
def test_a_server_that_keeps_no_messages_had_success(status: Any) -> None:
    made_up = making_up.from_history("p", {"outputs": None, "status": status}, Story("duty-0"))

    assert said(made_up) == [["execution_success", {"prompt_id": "p"}], RELEASE]
    assert made_up.outcome is Outcome.DONE


def test_an_error_without_messages_has_all_that_the_dialog_needs() -> None:
    made_up = making_up.from_history("p", {"status": {"status_str": "error"}}, Story("duty-0"))

    (kind, data), release = said(made_up)
    assert kind == "execution_error"
    assert data["exception_message"] == "The prompt failed"
    assert data["traceback"] == []
    assert release == RELEASE
    assert made_up.outcome is Outcome.ERROR


def test_a_lost_prompt_ends_with_an_error_that_the_front_end_can_show() -> None:
    made_up = making_up.from_outcome("p", Outcome.LOST, Story("duty-0"), now_ms=5)

    (kind, data), release = said(made_up)
    assert kind == "execution_error"
    assert data["prompt_id"] == "p"
    assert data["exception_message"] == "The server restarted and lost this prompt"
    assert all(isinstance(data[name], str) for name in ("node_id", "node_type", "exception_type"))
    assert all(isinstance(data[name], list) for name in ("executed", "traceback", "current_outputs"))
    assert data["timestamp"] == 5
    assert release == RELEASE
    assert made_up.outcome is Outcome.LOST


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.DONE, "execution_success"),
        (Outcome.ERROR, "execution_error"),
        (Outcome.INTERRUPTED, "execution_interrupted"),
        (Outcome.LOST, "execution_error"),
    ],
)
def test_an_ending_without_an_entry_is_told_in_few_words(outcome: Outcome, kind: str) -> None:
    made_up = making_up.from_outcome("p", outcome, Story("duty-0", executed={"9", "10"}), now_ms=5)

    verdict, release = said(made_up)
    assert verdict[0] == kind
    assert (verdict[1]["prompt_id"], verdict[1]["timestamp"]) == ("p", 5)
    assert release == RELEASE
    assert made_up.outcome is outcome


def test_an_interruption_names_what_was_executed_before() -> None:
    story = Story("duty-0", executed={"9", "10"})

    (_, data), _ = said(making_up.from_outcome("p", Outcome.INTERRUPTED, story, now_ms=5))

    assert data["executed"] == ["10", "9"]


def test_a_prompt_that_had_its_verdict_is_not_called_lost() -> None:
    story = Story("duty-0", has_verdict=True)

    assert said(making_up.from_outcome("p", Outcome.LOST, story, now_ms=5)) == [RELEASE]


def test_what_was_missed_comes_without_verdict_and_release() -> None:
    missed = making_up.missed(
        "p", entry(START, CACHED, SUCCESS), Story("duty-0", has_begun=True, executed={"9"})
    )

    assert [orjson.loads(frame.payload)["data"] for frame in missed] == [EXECUTED[1][1]]


def test_a_late_start_looks_like_any_other() -> None:
    assert orjson.loads(making_up.start("p", now_ms=1).payload) == dict(
        zip(("type", "data"), START, strict=True)
    )
