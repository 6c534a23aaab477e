"""A user's route changes while the client's socket stays open."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from simulators.comfyui import ComfySimulator, serve
from tests.site.relay_stand import (
    ALICE,
    BOB,
    QUICK,
    Client,
    ScriptedComfy,
    Stand,
    duty,
    pod,
    relay_before,
    sleeping,
    until,
)


@pytest.fixture
async def home() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.fixture
async def private() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.fixture
async def stand(home: ScriptedComfy) -> AsyncIterator[Stand]:
    async with relay_before(home.url) as standing:
        yield standing


def remaining(client: Client) -> list[int]:
    return [status["status"]["exec_info"]["queue_remaining"] for status in client.of("status")]


def narrative(client: Client, prompt_id: str) -> list[tuple[Any, ...]]:
    """All that was told about a prompt, previews with metadata included, without what differs from run to run."""
    told: list[tuple[Any, ...]] = []
    for said in client.said:
        if isinstance(said, bytes):
            metadata = json.loads(said[8 : 8 + int.from_bytes(said[4:8])])
            if metadata["prompt_id"] == prompt_id:
                told.append(("preview", metadata["node_id"]))
        elif (data := said["data"]).get("prompt_id") == prompt_id:
            nodes = data.get("nodes")
            if isinstance(nodes, dict):
                nodes = {node: (state["state"], state["value"]) for node, state in nodes.items()}
            told.append((said["type"], data.get("node"), data.get("value"), nodes))
    return told


async def test_a_socket_promoted_in_the_middle_hears_all_six_prompts_the_sixth_before_the_five_are_done() -> (
    None
):
    simulated_duty, simulated_pod = ComfySimulator("duty"), ComfySimulator("pod")
    async with (
        serve(simulated_duty) as duty_served,
        serve(simulated_pod) as pod_served,
        relay_before(duty_served.url) as stand,
    ):
        client = await stand.connect()
        await client.say("feature_flags", {"supports_preview_metadata": True})
        await client.hear_kind("feature_flags")
        alone = await stand.prompt(sleeping(0.05, seed=100))
        await client.hear_until(lambda client: "released" in client.story(alone))
        on_duty = [await stand.prompt(sleeping(0.2, seed=number)) for number in range(5)]
        await client.hear_until(lambda client: "released" in client.story(on_duty[0]))
        await client.hear_until(lambda client: "executing" in client.story(on_duty[1]))

        stand.routes.set_private(ALICE, pod(pod_served.url))
        assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
        sixth = await stand.prompt(sleeping(0.05, seed=5))
        await client.hear_until(lambda client: "released" in client.story(sixth))
        unfinished = {record.prompt_id for record in stand.ledger.unfinished()}
        await client.hear_until(lambda client: all("released" in client.story(one) for one in on_duty))

        assert unfinished == set(on_duty[1:])
        whole = narrative(client, alone)
        assert [kind for kind, *_ in whole].count("preview") == 4
        for prompt_id in (*on_duty, sixth):
            assert narrative(client, prompt_id) == whole
        assert {stand.outcome(prompt_id) for prompt_id in (*on_duty, sixth)} == {Outcome.DONE}
        assert [bool(status.get("sid")) for status in client.of("status")].count(True) == 1
        assert stand.stats.made_up_endings == 0
        assert len(stand.clients) == 1

        await until(lambda: simulated_duty.open_sockets == 0)
        assert simulated_pod.open_sockets == 1


async def test_each_preview_of_two_servers_at_once_comes_after_its_own_node() -> None:
    """A script takes a preview in the old form to be from the node that was last said to execute."""
    async with (
        serve(ComfySimulator("duty")) as duty_served,
        serve(ComfySimulator("pod")) as pod_served,
        relay_before(duty_served.url) as stand,
    ):
        client = await stand.connect()
        on_duty = await stand.prompt(sleeping(0.4, steps=8, seed=1))
        stand.routes.set_private(ALICE, pod(pod_served.url))
        assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
        on_pod = await stand.prompt(sleeping(0.4, steps=8, seed=2))
        both = (on_duty, on_pod)
        await client.hear_until(lambda client: all("released" in client.story(one) for one in both))

        executing: str | None = None
        advancing: list[str] = []
        shown: list[str | None] = []
        for said in client.said:
            if isinstance(said, bytes):
                shown.append(executing)
            elif said["type"] == "executing":
                executing = said["data"]["prompt_id"]
            elif said["type"] == "progress":  # 0.3.64 sends it just before the preview of the old form
                advancing.append(said["data"]["prompt_id"])
        assert shown == advancing
        assert sorted(advancing) == sorted([*both] * 8)


async def test_the_new_socket_is_opened_first_and_the_old_one_closed_when_nothing_is_left_there(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    private.answers.clear()

    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: private.requests)
    await asyncio.sleep(2 * QUICK.farewell_s)
    assert len(home.registered) == 1

    private.answers.set()
    await until(lambda: len(private.registered) == 1)
    await until(lambda: home.registered == {})
    await private.say("hello")
    await client.hear_kind("hello")

    assert client.said[1:] == [{"type": "hello", "data": {}}]


async def test_the_old_socket_stays_until_the_last_prompt_there_is_released(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", duty(home.url))
    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: private.registered)

    await home.say("execution_success", prompt_id="p")
    await client.hear_kind("execution_success")
    await asyncio.sleep(2 * QUICK.farewell_s)
    assert home.registered, "ComfyUI says executing with node null after the success"

    await home.say("executing", node=None, prompt_id="p")
    await client.hear_until(lambda client: "released" in client.story("p"))
    await until(lambda: home.registered == {})


async def test_a_prompt_that_the_old_server_accepts_during_the_move_is_heard(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: private.registered)

    stand.accept("p", duty(home.url))
    await asyncio.sleep(2 * QUICK.farewell_s)
    await home.say("execution_start", prompt_id="p")

    await client.hear_kind("execution_start")
    assert home.opened == 1


async def test_a_socket_is_opened_again_for_a_prompt_accepted_after_the_farewell(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: home.registered == {} and private.registered)

    home.queue = ["p"]
    stand.accept("p", duty(home.url))
    await until(lambda: home.registered)
    await home.say("execution_success", prompt_id="p")

    await client.hear_kind("execution_success")
    assert set(home.most_open.values()) == {1}


async def test_a_new_client_during_the_move_hears_both_servers(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.accept("p", duty(home.url))
    home.queue = ["p"]
    stand.routes.set_private(ALICE, pod(private.url))

    client = await stand.connect()
    await until(lambda: home.registered and private.registered)
    await home.say("executed", node="9", prompt_id="p")
    await private.say("executed", node="7", prompt_id="q")

    await client.hear_kind("executed", 2)


async def test_messages_of_the_client_go_to_the_current_server(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.routes.set_private(ALICE, pod(private.url))

    await client.say("hello", {})
    await until(lambda: private.heard)

    assert home.heard == []


async def test_the_count_is_the_sum_of_all_servers_until_the_old_one_is_left(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    home.remaining, private.remaining = 3, 2
    client = await stand.connect()
    await client.hear_kind("status")
    stand.accept("p", duty(home.url))

    stand.routes.set_private(ALICE, pod(private.url))
    await client.hear_kind("status", 2)
    await home.say_status(1)
    await client.hear_kind("status", 3)
    await home.say("executing", node=None, prompt_id="p")
    await until(lambda: home.registered == {})
    await client.hear_kind("status", 4)

    assert remaining(client) == [3, 5, 3, 2]
    assert [status.get("sid") for status in client.of("status")] == ["tab", None, None, None]


async def test_the_new_servers_greeting_is_not_news(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    await client.say("feature_flags", {"supports_preview_metadata": True})
    await until(lambda: home.heard)
    await home.say("feature_flags", max_upload_size=1)
    await client.hear_kind("feature_flags")
    private.resumes = "9"

    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: private.heard)
    await private.say("feature_flags", max_upload_size=2)
    await private.say("done")
    await client.hear_kind("done")

    assert client.kinds() == ["status", "feature_flags", "done"]


async def test_feature_flags_are_the_first_message_to_every_server(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    await client.say("feature_flags", flags["data"])
    await client.say("other", {})
    await until(lambda: len(home.heard) == 2)

    stand.routes.set_private(ALICE, pod(private.url))
    await client.say("later", {})
    await until(lambda: len(private.heard) == 2)

    assert home.heard == [flags, {"type": "other", "data": {}}]
    assert private.heard == [flags, {"type": "later", "data": {}}]


async def test_the_way_back_is_a_move_like_any_other(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    client = await stand.connect()
    stand.accept("p", pod(private.url))

    stand.routes.clear_private(ALICE)
    await until(lambda: home.registered)
    await private.say("execution_success", prompt_id="p")
    await private.say("executing", node=None, prompt_id="p")
    await client.hear_until(lambda client: "released" in client.story("p"))

    await until(lambda: private.registered == {})
    await home.say("hello")
    await client.hear_kind("hello")


async def test_a_pod_that_is_gone_with_a_prompt_is_not_called_for_ever(home: ScriptedComfy) -> None:
    limits = replace(QUICK, lost_tries=3, backoff_most_s=0.05)
    async with relay_before(home.url, limits) as stand:
        async with ScriptedComfy().serving() as private:
            stand.routes.set_private(ALICE, pod(private.url))
            client = await stand.connect()
            await client.hear_kind("status")
            stand.accept("p", pod(private.url))
            stand.routes.clear_private(ALICE)
            await until(lambda: home.registered)
        await until(lambda: stand.stats.upstream_sockets == 1)
        await until(lambda: not any("comfy-gw-alice-1" in task.get_name() for task in asyncio.all_tasks()))

        stand.ledger.end("p", Outcome.LOST)
        await client.hear_until(lambda client: "released" in client.story("p"))

        assert client.story("p") == ["execution_error", "released"]


async def test_a_prompt_whose_loss_others_have_found_is_told_once(home: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", duty(home.url))

    stand.ledger.end("p", Outcome.LOST)
    await home.say("execution_success", prompt_id="p")
    await home.say("executing", node=None, prompt_id="p")
    await home.say("hello")
    await client.hear_kind("hello")

    assert client.story("p") == ["execution_error", "released"]
    assert client.of("execution_error")[0]["exception_message"] == "The server restarted and lost this prompt"


async def test_a_prompt_that_moved_to_another_server_is_heard_there(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", duty(home.url))
    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: private.registered)

    stand.ledger.accept(PromptRecord("p", ALICE.key, "tab", pod(private.url).id))
    await private.say("execution_start", prompt_id="p")
    await client.hear_kind("execution_start")

    await until(lambda: home.registered == {})


async def test_another_users_move_changes_nothing(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    await client.hear_kind("status")

    stand.routes.set_private(BOB, pod(private.url))
    await home.say("hello")
    await client.hear_kind("hello")

    assert private.requests == []


async def test_who_asks_is_told_when_the_new_server_listens(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    await stand.connect()
    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=0.05)
    assert await stand.relay.is_listening(ALICE, "no client has this id", timeout_s=0.05)
    private.answers.clear()

    stand.routes.set_private(ALICE, pod(private.url))
    assert not await stand.relay.is_listening(ALICE, "tab", timeout_s=0.05)
    private.answers.set()

    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
    assert private.registered


async def test_moves_to_and_fro_never_overlap_on_a_server(
    home: ScriptedComfy, private: ScriptedComfy
) -> None:
    async with relay_before(home.url, replace(QUICK, farewell_s=0.02)) as stand:
        client = await stand.connect()
        for number in range(30):
            if number % 2:
                stand.routes.clear_private(ALICE)
            else:
                stand.routes.set_private(ALICE, pod(private.url))
            await asyncio.sleep(0.003 * number)

        stand.routes.clear_private(ALICE)
        assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
        await until(lambda: private.registered == {})
        await home.say("hello")
        await client.hear_kind("hello")

        assert home.opened > 1
        assert private.opened > 1
        assert set(home.most_open.values()) == set(private.most_open.values()) == {1}


async def test_a_server_that_is_not_needed_any_more_is_not_called_again(
    home: ScriptedComfy, private: ScriptedComfy
) -> None:
    async with relay_before(home.url, replace(QUICK, farewell_s=5.0)) as stand:
        client = await stand.connect()
        stand.routes.set_private(ALICE, pod(private.url))
        await until(lambda: private.registered)

        home.drop()
        await until(lambda: not any("duty-0" in task.get_name() for task in asyncio.all_tasks()))
        await private.say("hello")
        await client.hear_kind("hello")

        assert home.opened == 1


async def test_an_answer_about_features_is_the_current_servers(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    first = await stand.connect()
    await first.say("feature_flags", {})
    await until(lambda: private.heard)
    await private.say("feature_flags", max_upload_size=1)
    await first.hear_kind("feature_flags")

    home.queue = ["p"]
    stand.accept("p", duty(home.url))
    await until(lambda: home.heard)
    await home.say("feature_flags", max_upload_size=2)
    await home.say("execution_start", prompt_id="p")
    await first.hear_kind("execution_start")
    second = await stand.connect()
    await second.say("feature_flags", {})

    assert await second.hear_kind("feature_flags") == {"max_upload_size": 1}
    assert len(first.of("feature_flags")) == 1
