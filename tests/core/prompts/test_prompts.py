"""Records of prompts, and how a history entry says that one ended."""

from typing import Any

import pytest

from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord, outcome_of_history


def status(text: Any, *kinds: str) -> dict[str, Any]:
    return {
        "status": {
            "status_str": text,
            "completed": text == "success",
            "messages": [[kind, {"prompt_id": "p"}] for kind in kinds],
        }
    }


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (status("success", "execution_start", "execution_success"), Outcome.DONE),
        (status("error", "execution_start", "execution_error"), Outcome.ERROR),
        (status("error", "execution_start", "execution_interrupted"), Outcome.INTERRUPTED),
        (status("error"), Outcome.ERROR),
        ({"status": {"status_str": "error"}}, Outcome.ERROR),
        ({"status": {"status_str": "error", "messages": "?"}}, Outcome.ERROR),
        (
            {"status": {"status_str": "error", "messages": [[], ["execution_interrupted"]]}},
            Outcome.INTERRUPTED,
        ),
        ({"status": None}, Outcome.DONE),
        ({"outputs": {}}, Outcome.DONE),
        ({}, Outcome.DONE),
        (None, Outcome.DONE),
        ([], Outcome.DONE),
    ],
    ids=str,
)
def test_the_history_tells_how_a_prompt_ended(entry: Any, outcome: Outcome) -> None:
    assert outcome_of_history(entry) is outcome


@pytest.mark.parametrize("outcome", Outcome)
def test_everything_but_accepted_and_running_is_an_ending(outcome: Outcome) -> None:
    record = PromptRecord("p1", None, "sid", "duty-0", outcome)
    assert record.is_finished == (outcome not in {Outcome.ACCEPTED, Outcome.RUNNING})
