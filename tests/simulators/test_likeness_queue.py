"""Queue, history, cache and interruption of the simulated ComfyUI are those of a real one.

Each test holds for both. Lines are those of ComfyUI 0.3.64.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.simulators.comfy_client import Duty, empty, eventually, kinds, loading, opened, png, saved
from tests.simulators.likeness import BOTH, fresh, one_of, slow, until_idle

pytestmark = BOTH


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Duty]:
    async with one_of(request.param) as duty:
        yield duty


async def busy(server: Duty, **more: Any) -> str:
    """A prompt that runs until somebody interrupts it, nearly. Returns its id."""
    accepted = await server.prompt(slow(), **more)
    await server.running(accepted["prompt_id"])
    prompt_id: str = accepted["prompt_id"]
    return prompt_id


async def waiting(server: Duty) -> list[str]:
    return [item[1] for item in (await server.get("queue"))["queue_pending"]]


async def test_an_identical_prompt_is_answered_with_the_earlier_file(server: Duty) -> None:
    """execution.py:402 and :659: all nodes are cached, and only the outputs are told."""
    nodes = saved(10, f"{fresh()}/a")
    client = fresh("me")
    async with server.listen(client) as page:
        first = await server.prompt(nodes, client_id=client)
        await page.until("executing", node=None)
        second = await server.prompt(nodes, client_id=client)
        heard = await page.until("executing", node=None)
    told = [message for message in heard if message["data"].get("prompt_id") == second["prompt_id"]]
    assert kinds(told) == [
        "execution_start",
        "execution_cached",
        "executed",
        "progress_state",
        "execution_success",
        "executing",
    ]
    assert set(told[1]["data"]["nodes"]) == {"1", "2"}
    before = (await server.ended(first["prompt_id"]))["outputs"]
    after = await server.ended(second["prompt_id"])
    assert after["outputs"] == before
    assert told[2]["data"] == {
        "node": "2",
        "display_node": "2",
        "output": before["2"],
        "prompt_id": second["prompt_id"],
    }
    assert after["meta"] == {
        "2": {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}
    }


async def test_a_change_runs_only_what_comes_after_it(server: Duty) -> None:
    """caching.py:86: the signature of a node is that of its class, inputs and ancestors."""
    stem = fresh()
    await server.run(saved(11, f"{stem}/a"))
    entry = await server.run(saved(11, f"{stem}/b"))
    assert dict(entry["status"]["messages"])["execution_cached"]["nodes"] == ["1"]
    assert entry["outputs"]["2"]["images"][0]["filename"] == "b_00001_.png"
    entry = await server.run(saved(11, f"{stem}/a"))
    assert entry["outputs"]["2"]["images"][0]["filename"] == "a_00002_.png"


async def test_node_numbers_do_not_matter_to_the_cache(server: Duty) -> None:
    prefix = f"{fresh()}/a"
    await server.run(saved(12, prefix))
    save = {"class_type": "SaveImage", "inputs": {"images": ["x", 0], "filename_prefix": prefix}}
    entry = await server.run({"x": empty(12), "y": save})
    assert entry["outputs"]["y"]["images"][0]["filename"] == "a_00001_.png"
    assert entry["meta"]["y"]["node_id"] == "2"


async def test_a_file_that_changed_is_loaded_again_unless_the_prompt_says_what_it_was(server: Duty) -> None:
    """nodes.py:1691 hashes the file, and execution.py:69 believes a prompt that brings its `is_changed`."""
    stem = fresh()
    await server.upload(f"{stem}.png", png("red", (40, 40)))
    nodes = loading(f"{stem}.png")
    first = await server.run(nodes)
    made = await server.picture(**first["outputs"]["9"]["images"][0])
    recorded = json.loads(opened(made).info["prompt"])
    assert recorded["1"].keys() == {"class_type", "inputs", "is_changed"}
    assert first["prompt"][2] == nodes
    await server.upload(f"{stem}.png", png("blue", (40, 40)), overwrite="true")
    again = await server.run(recorded)
    assert again["outputs"] == first["outputs"]
    anew = await server.run(nodes)
    assert anew["outputs"] != first["outputs"]
    picture = opened(await server.picture(**anew["outputs"]["9"]["images"][0]))
    assert picture.getpixel((39, 39)) == (0, 0, 255)


async def test_a_history_entry_has_this_shape(server: Duty) -> None:
    """execution.py:1074 to :1098, and the messages of execution.py:608."""
    client = fresh("me")
    accepted = await server.prompt(
        saved(13, f"{fresh()}/a"),
        client_id=client,
        number=7,
        extra_data={"client_id": "other", "api_key_comfy_org": "secret", "auth_token_comfy_org": "x", "k": 1},
    )
    assert accepted == {"prompt_id": accepted["prompt_id"], "number": 7.0, "node_errors": {}}
    entry = await server.ended(accepted["prompt_id"])
    assert list(entry) == ["prompt", "outputs", "status", "meta"]
    number, prompt_id, nodes, extra_data, outputs = entry["prompt"]
    assert (number, prompt_id, outputs) == (7.0, accepted["prompt_id"], ["2"])
    assert nodes["1"] == empty(13)
    assert extra_data == {"client_id": client, "k": 1}
    assert entry["status"].keys() == {"status_str", "completed", "messages"}
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("success", True)
    messages = entry["status"]["messages"]
    assert [name for name, _ in messages] == ["execution_start", "execution_cached", "execution_success"]
    assert [data.keys() for _, data in messages] == [
        {"prompt_id", "timestamp"},
        {"nodes", "prompt_id", "timestamp"},
        {"prompt_id", "timestamp"},
    ]
    assert all(isinstance(data["timestamp"], int) for _, data in messages)


async def test_a_failing_node_leaves_this_entry(server: Duty) -> None:
    """execution.py:571 and :630; what ran before keeps its outputs."""
    stem = fresh()
    await server.upload(f"{stem}.png", b"no picture")
    entry = await server.run({**saved(14, f"{stem}/a"), **relabelled(loading(f"{stem}.png"))})
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    name, data = entry["status"]["messages"][-1]
    assert name == "execution_error"
    assert data.keys() == {
        "prompt_id",
        "node_id",
        "node_type",
        "executed",
        "exception_message",
        "exception_type",
        "traceback",
        "current_inputs",
        "current_outputs",
        "timestamp",
    }
    assert (data["node_id"], data["node_type"]) == ("l1", "LoadImage")
    assert data["exception_type"] == "PIL.UnidentifiedImageError"
    assert data["current_inputs"] == {"image": [f"{stem}.png"]}
    assert set(data["current_outputs"]) == {"1", "2", "l1", "l9"}


def relabelled(nodes: dict[str, Any]) -> dict[str, Any]:
    """The same nodes, with an l before each number."""
    return {
        f"l{node_id}": {
            **node,
            "inputs": {
                name: [f"l{value[0]}", value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            },
        }
        for node_id, node in nodes.items()
    }


async def test_the_history_is_paged_alike(server: Duty) -> None:
    """execution.py:1127."""
    stem = fresh()
    for letter in "abcd":
        await server.run(saved(15, f"{stem}/a"), prompt_id=f"{stem}-{letter}")

    async def page(query: str) -> str:
        return "".join(key[-1] for key in await server.get(f"history?{query}"))

    expected = {
        "": "abcd",
        "max_items=2": "cd",
        "max_items=9": "abcd",
        "max_items=0": "",
        "max_items=-1": "",
        "offset=1": "bcd",
        "offset=9": "",
        "offset=-1": "abcd",
        "offset=-3&max_items=2": "cd",
        "max_items=2&offset=0": "ab",
        "max_items=2&offset=1": "bc",
        "max_items=2&offset=3": "d",
        "max_items=0&offset=1": "b",
    }
    assert {query: await page(query) for query in expected} == expected
    for query in ("max_items=x", "offset="):
        async with server.http.get(f"history?{query}") as answer:
            assert answer.status == 500
    assert await server.get("history/unknown") == {}
    await server.prompt(saved(15, f"{stem}/a"), prompt_id=f"{stem}-b")
    await until_idle(server)
    assert await page("") == "abcd"  # the same id again keeps its place
    await server.post("history", {"delete": [f"{stem}-b", "unknown"]})
    assert await page("") == "acd"
    await server.post("history", {"clear": False})
    assert await page("") == "acd"
    await server.post("history", {"clear": True, "delete": ["x"]})
    assert await page("") == ""


async def test_the_queue_is_a_heap_on_numbers(server: Duty) -> None:
    """execution.py:1056, server.py:690: lower runs first; a counter where no number is given, negated in front."""
    running = await busy(server, number=-1e6)
    stem = fresh()
    numbers: list[float] = []
    for more in ({"number": 10}, {"number": 5.5}, {"number": 1.25}, {}, {"front": True}, {"front": False}):
        accepted = await server.prompt(saved(16), prompt_id=f"{stem}-{len(numbers)}", **more)
        numbers.append(accepted["number"])
    assert numbers[:3] == [10.0, 5.5, 1.25]
    counter = numbers[3]
    assert numbers[4:] == [-(counter + 1), counter + 2]
    told = await server.get("queue")
    assert [item[1] for item in told["queue_running"]] == [running]
    assert [len(item) for item in told["queue_running"] + told["queue_pending"]] == [5] * 7
    order = [item[0] for item in told["queue_pending"]]
    assert sorted(order) == sorted(numbers)
    assert all(order[(place - 1) // 2] <= order[place] for place in range(1, len(order)))
    await server.post("interrupt", {"prompt_id": running})
    for place in range(6):
        await server.ended(f"{stem}-{place}")
    ended = [key[-1] for key in await server.get("history") if key.startswith(stem)]
    assert ended == [str(place) for place in sorted(range(6), key=lambda place: numbers[place])]


async def test_secrets_stand_in_the_queue(server: Duty) -> None:
    """execution.py:1086 takes them out when the prompt has ended; server.py:680 shows them before."""
    running = await busy(server, extra_data={"api_key_comfy_org": "secret"})
    (item,) = (await server.get("queue"))["queue_running"]
    assert item[3] == {"api_key_comfy_org": "secret"}
    await server.post("interrupt", {})
    assert (await server.ended(running))["prompt"][3] == {}


async def test_a_second_prompt_with_number_and_id_of_another_is_queued_and_answered_with_500(
    server: Duty,
) -> None:
    """execution.py:1055: heapq compares the dictionaries, after it took the prompt in."""
    running = await busy(server)
    twin = {"prompt_id": fresh(), "number": 5}
    await server.prompt(saved(17), **twin)
    assert await server.post("prompt", {"prompt": saved(18), **twin}) == 500
    assert await waiting(server) == [twin["prompt_id"]] * 2
    await server.post("queue", {"clear": True})
    await server.post("interrupt", {"prompt_id": running})


async def test_waiting_prompts_are_deleted_and_everybody_is_told(server: Duty) -> None:
    """execution.py:1113: the last one is cleared and then told once more; an unknown one is told to nobody."""
    running = await busy(server)
    stem = fresh()
    for letter in "ab":
        await server.prompt(saved(19), prompt_id=f"{stem}-{letter}")
    async with server.listen(fresh("other")) as page:
        assert await server.post("queue", {"delete": ["unknown", running, f"{stem}-a"]}) == 200
        assert await waiting(server) == [f"{stem}-b"]
        assert await server.post("queue", {"delete": [f"{stem}-b"]}) == 200
        # The prompt that runs may begin its next node meanwhile, and has no client: everybody hears that too.
        told = [(await page.until("status"))[-1] for _ in range(3)]
        assert await waiting(server) == []
    remaining = [message["data"]["status"]["exec_info"]["queue_remaining"] for message in told]
    assert remaining == [2, 1, 1]
    await server.post("interrupt", {})


async def test_an_interruption_is_aimed(server: Duty) -> None:
    """server.py:739: with an id only the prompt that runs, without one whoever runs."""
    client = fresh("me")
    async with server.listen(client) as page:
        running = await busy(server, client_id=client)
        behind = (await server.prompt(saved(20), client_id=client))["prompt_id"]
        assert await server.post("interrupt", {"prompt_id": behind}) == 200
        assert await server.post("interrupt", {"prompt_id": "unknown"}) == 200
        assert [item[1] for item in (await server.get("queue"))["queue_running"]] == [running]
        assert await server.post("interrupt", {"prompt_id": running}) == 200
        heard = await page.until("execution_interrupted", prompt_id=running)
        data = heard[-1]["data"]
        assert data.keys() == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
        assert data["node_type"] in ("EmptyImage", "ImageScale")
        await page.until("execution_success", prompt_id=behind)
    entry = await server.ended(running)
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    assert entry["outputs"] == {}
    another = await busy(server)
    async with server.http.post("interrupt") as answer:
        assert answer.status == 200
    assert (await server.ended(another))["status"]["messages"][-1][0] == "execution_interrupted"
    assert await server.post("interrupt", {}) == 200
    assert (await server.run(saved(21)))["status"]["completed"] is True


async def test_the_cache_is_freed_after_the_prompt_that_runs(server: Duty) -> None:
    """main.py:159: a flag that the worker looks at between prompts."""
    prefix = f"{fresh()}/a"
    nodes = saved(22, prefix)
    await server.run(nodes)
    assert await server.post("free", {"free_memory": True}) == 200

    async def freed() -> bool:
        entry = await server.run(nodes)
        filename: str = entry["outputs"]["2"]["images"][0]["filename"]
        return filename == "a_00002_.png"

    await eventually(freed)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": saved(), "number": None},
        {"prompt": []},
        {"prompt": saved(), "extra_data": None, "client_id": "x"},
    ],
    ids=["number", "list", "extra_data"],
)
async def test_nonsense_is_answered_alike(server: Duty, body: dict[str, Any]) -> None:
    """server.py:688 does not look: Python raises, aiohttp answers 500; a list without nodes has no outputs."""
    expected = 400 if body["prompt"] == [] else 500
    assert await server.post("prompt", body) == expected


async def test_a_prompt_id_of_any_kind_is_taken(server: Duty) -> None:
    """server.py:700: written out as text."""
    assert (await server.prompt(saved(23), prompt_id=None))["prompt_id"] == "None"
    assert (await server.prompt(saved(23), prompt_id=12))["prompt_id"] == "12"
