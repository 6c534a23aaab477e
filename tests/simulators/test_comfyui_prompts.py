"""Prompts, the queue, interruption and the history of the simulated ComfyUI."""

from typing import Any

import pytest

from tests.simulators.comfy_client import Duty, empty, loading, saved, sleeping


async def test_an_accepted_prompt_runs_and_stands_in_the_history(duty: Duty) -> None:
    accepted = await duty.prompt(saved(), client_id="me")
    entry = await duty.ended(accepted["prompt_id"])
    assert accepted["number"] == 0
    assert accepted["node_errors"] == {}
    assert entry["prompt"] == [0, accepted["prompt_id"], saved(), {"client_id": "me"}, ["2"]]
    image = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}
    assert entry["outputs"] == {"2": {"images": [image]}}
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    assert [name for name, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]


async def test_the_caller_may_choose_prompt_id_and_number(duty: Duty) -> None:
    assert await duty.prompt(saved(), prompt_id="mine", number=7) == {
        "prompt_id": "mine",
        "number": 7.0,
        "node_errors": {},
    }


async def test_numbers_count_up_and_front_negates(duty: Duty) -> None:
    duty.sim.mood.paused = True
    numbers = [
        (await duty.prompt(saved(), **more))["number"]
        for more in ({}, {}, {"front": True}, {"number": 0.5}, {})
    ]
    assert numbers == [0, 1, -2, 0.5, 3]


async def test_lower_numbers_run_first(duty: Duty) -> None:
    duty.sim.mood.paused = True
    await duty.prompt(saved(), prompt_id="running")
    await duty.running("running")
    for number in (10, 5.5, 1.25, 7):
        await duty.prompt(saved(), prompt_id=f"at {number}", number=number)
    duty.sim.mood.paused = False
    await duty.ended("at 10")
    assert list(await duty.get("history")) == ["running", "at 1.25", "at 5.5", "at 7", "at 10"]


async def test_accepted_lists_every_accepted_body_in_order(duty: Duty) -> None:
    first = await duty.prompt(saved(), client_id="me")
    await duty.refused({"prompt": {}})
    await duty.prompt(saved(), prompt_id="second", number=3)
    assert duty.sim.accepted == [
        {"prompt": saved(), "client_id": "me", "prompt_id": first["prompt_id"], "number": 0},
        {"prompt": saved(), "prompt_id": "second", "number": 3.0},
    ]
    assert await duty.get("_sim/accepted") == duty.sim.accepted


@pytest.mark.parametrize(
    ("nodes", "kind", "details"),
    [
        ({}, "prompt_no_outputs", ""),
        ({"1": empty()}, "prompt_no_outputs", ""),
        ({"1": {"class_type": "KSampler", "inputs": {}}}, "invalid_prompt", "Node ID '#1'"),
        ({"7": {"inputs": {}}}, "invalid_prompt", "Node ID '#7'"),
    ],
    ids=["empty", "no output node", "unknown class", "no class"],
)
async def test_a_prompt_that_cannot_begin_is_refused(
    duty: Duty, nodes: dict[str, Any], kind: str, details: str
) -> None:
    answer = await duty.refused({"prompt": nodes})
    assert answer["node_errors"] == {}
    assert (answer["error"]["type"], answer["error"]["details"]) == (kind, details)
    assert answer["error"].keys() == {"type", "message", "details", "extra_info"}


async def test_a_body_without_a_prompt_is_refused(duty: Duty) -> None:
    assert await duty.refused({"client_id": "me"}) == {
        "error": {
            "type": "no_prompt",
            "message": "No prompt provided",
            "details": "No prompt provided",
            "extra_info": {},
        },
        "node_errors": {},
    }


@pytest.mark.parametrize(
    ("inputs", "kind", "details"),
    [
        ({"width": 0}, "value_smaller_than_min", "width"),
        ({"width": 99999}, "value_bigger_than_max", "width"),
        (
            {"color": "blue"},
            "invalid_input_type",
            "color, blue, invalid literal for int() with base 10: 'blue'",
        ),
        ({"width": ["1"]}, "bad_linked_input", "width"),
        ({"width": ["2", 0]}, "exception_during_inner_validation", "tuple index out of range"),
    ],
    ids=["too small", "too big", "no number", "no link", "no such slot"],
)
async def test_a_wrong_input_is_told_at_its_node(
    duty: Duty, inputs: dict[str, Any], kind: str, details: str
) -> None:
    answer = await duty.refused({"prompt": saved(**inputs)})
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    (fault,) = answer["node_errors"]["1"]["errors"]
    assert (fault["type"], fault["details"]) == (kind, details)
    assert answer["node_errors"]["1"]["dependent_outputs"] == ["2"]
    assert answer["node_errors"]["1"]["class_type"] == "EmptyImage"
    assert list(answer["node_errors"]) == ["1"]


async def test_a_missing_input_and_a_link_to_nowhere_are_told(duty: Duty) -> None:
    nodes = {"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}, "3": empty()}
    assert (await duty.refused({"prompt": nodes}))["node_errors"]["2"]["errors"][0]["type"] == (
        "exception_during_validation"
    )
    del nodes["2"]["inputs"]["images"]
    faults = (await duty.refused({"prompt": nodes}))["node_errors"]["2"]["errors"]
    assert {(fault["type"], fault["details"]) for fault in faults} == {
        ("required_input_missing", "images"),
        ("required_input_missing", "filename_prefix"),
    }


async def test_a_prompt_that_names_a_missing_file_is_refused(duty: Duty) -> None:
    answer = await duty.refused({"prompt": loading("photo.png")})
    assert answer["error"]["details"] == ""
    assert answer["node_errors"]["1"]["errors"] == [
        {
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": "image - Invalid image file: photo.png",
            "extra_info": {"input_name": "image"},
        }
    ]


async def test_a_faulty_output_does_not_hinder_the_others(duty: Duty) -> None:
    broken = {"class_type": "PreviewImage", "inputs": {}}
    accepted = await duty.prompt({**saved(), "3": broken})
    assert list(accepted["node_errors"]) == ["3"]
    assert list((await duty.ended(accepted["prompt_id"]))["outputs"]) == ["2"]


async def test_partial_execution_runs_only_its_targets(duty: Duty) -> None:
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    entry = await duty.run({**saved(), "3": preview}, partial_execution_targets=["3"])
    assert list(entry["outputs"]) == ["3"]


async def test_the_queue_shows_who_runs_and_who_waits(duty: Duty) -> None:
    duty.sim.mood.paused = True
    await duty.prompt(saved(), prompt_id="a", client_id="me")
    await duty.running("a")
    await duty.prompt(saved(1), prompt_id="b", extra_data={"client_id": "other"})
    assert await duty.get("queue") == {
        "queue_running": [[0, "a", saved(), {"client_id": "me"}, ["2"]]],
        "queue_pending": [[1, "b", saved(1), {"client_id": "other"}, ["2"]]],
    }
    assert await duty.get("prompt") == {"exec_info": {"queue_remaining": 2}}


async def test_waiting_prompts_can_be_deleted_and_cleared(duty: Duty) -> None:
    duty.sim.mood.paused = True
    for name in "abcd":
        await duty.prompt(saved(), prompt_id=name)
    await duty.running("a")
    assert await duty.post("queue", {"delete": ["c", "a", "unknown"]}) == 200
    queue = await duty.get("queue")
    assert [item[1] for item in queue["queue_running"] + queue["queue_pending"]] == ["a", "b", "d"]
    assert await duty.post("api/queue", {"clear": True}) == 200
    queue = await duty.get("queue")
    assert [item[1] for item in queue["queue_running"] + queue["queue_pending"]] == ["a"]


async def test_interrupt_with_an_id_stops_only_that_prompt(duty: Duty) -> None:
    await duty.prompt(sleeping(60), prompt_id="running")
    await duty.running("running")
    assert await duty.post("interrupt", {"prompt_id": "somebody else's"}) == 200
    await duty.prompt(saved(), prompt_id="waiting")
    await duty.running("running")
    assert await duty.post("interrupt", {"prompt_id": "running"}) == 200
    entry = await duty.ended("running")
    assert entry["status"]["status_str"] == "error"
    name, data = entry["status"]["messages"][-1]
    assert (name, data["node_id"], data["node_type"]) == ("execution_interrupted", "1", "SimSleep")
    assert (await duty.ended("waiting"))["status"]["completed"] is True


async def test_interrupt_without_a_body_stops_whoever_runs(duty: Duty) -> None:
    await duty.prompt(sleeping(60), prompt_id="running")
    await duty.running("running")
    async with duty.http.post("api/interrupt") as answer:
        assert answer.status == 200
    assert (await duty.ended("running"))["status"]["completed"] is False


async def test_an_interrupt_while_nothing_runs_does_not_reach_the_next_prompt(duty: Duty) -> None:
    assert await duty.post("interrupt", {}) == 200
    assert (await duty.run(saved()))["status"]["completed"] is True


async def test_the_history_is_paged_and_deleted(duty: Duty) -> None:
    for name in "abcd":
        await duty.run(saved(), prompt_id=name)
    assert list(await duty.get("history")) == ["a", "b", "c", "d"]
    assert list(await duty.get("history?max_items=2")) == ["c", "d"]
    assert list(await duty.get("api/history?max_items=2&offset=1")) == ["b", "c"]
    assert await duty.get("history/unknown") == {}
    assert await duty.post("history", {"delete": ["b"]}) == 200
    assert list(await duty.get("history")) == ["a", "c", "d"]
    assert await duty.post("history", {"clear": True}) == 200
    assert await duty.get("history") == {}


async def test_secrets_in_extra_data_do_not_reach_the_history(duty: Duty) -> None:
    entry = await duty.run(saved(), extra_data={"api_key_comfy_org": "secret", "kept": 1})
    assert entry["prompt"][3] == {"kept": 1}
