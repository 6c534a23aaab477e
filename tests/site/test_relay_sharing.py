"""Several clients of one socket id, clients that come back, and the same id of different users."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from comfy_gateway.core.people.users import IdKind, UserId
from tests.site.relay_stand import (
    ALICE,
    BOB,
    ScriptedComfy,
    Stand,
    finished,
    jpeg_preview,
    relay_before,
    until,
)


@pytest.fixture
async def comfy() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.fixture
async def stand(comfy: ScriptedComfy) -> AsyncIterator[Stand]:
    async with relay_before(comfy.url) as standing:
        yield standing


async def test_two_tabs_of_one_id_share_one_socket_and_both_hear_everything(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    await first.hear_kind("status")
    second = await stand.connect()

    await comfy.say("executed", node="9", prompt_id="p")
    await comfy.say_status(2)

    for tab in (first, second):
        await tab.hear_kind("status", 2)
        assert tab.kinds() == ["status", "executed", "status"]
        assert [status.get("sid") for status in tab.of("status")] == ["tab", None]
    assert comfy.opened == 1


async def test_a_second_tab_is_told_at_once_what_runs(comfy: ScriptedComfy, stand: Stand) -> None:
    first = await stand.connect()
    await comfy.say_status(1)
    await comfy.say("executing", node="4", prompt_id="p")
    await comfy.say("progress_state", prompt_id="p", nodes={"4": {"value": 1}})
    await comfy.say("executing", node="5", prompt_id="p")
    await first.hear_kind("executing", 2)

    second = await stand.connect()
    heard = [await second.hear() for _ in range(3)]

    assert heard == [
        {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "tab"}},
        {"type": "executing", "data": {"node": "5", "prompt_id": "p"}},
        {"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"4": {"value": 1}}}},
    ]


@pytest.mark.parametrize(
    "ending", ["execution_success", "execution_error", "execution_interrupted", "released"]
)
async def test_a_tab_that_comes_after_the_end_hears_of_nothing_running(
    comfy: ScriptedComfy, stand: Stand, ending: str
) -> None:
    first = await stand.connect()
    await comfy.say("executing", node="4", prompt_id="p")
    await comfy.say("progress_state", prompt_id="p", nodes={})
    if ending == "released":
        await comfy.say("executing", node=None, prompt_id="p")
    else:
        await comfy.say(ending, prompt_id="p")
    await comfy.say("hello")
    await first.hear_kind("hello")

    second = await stand.connect()
    await comfy.say("goodbye")
    await second.hear_kind("goodbye")

    assert second.kinds() == ["status", "goodbye"]


async def test_one_tab_may_go_while_the_other_stays(comfy: ScriptedComfy, stand: Stand) -> None:
    first, second = await stand.connect(), await stand.connect()

    await first.socket.close()
    await until(lambda: stand.stats.client_sockets == 1)
    await comfy.say("hello")

    await second.hear_kind("hello")
    assert comfy.opened == 1


async def test_each_tab_has_an_answer_to_its_feature_flags_from_one_question(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first, second = await stand.connect(), await stand.connect()
    await first.say("feature_flags", {})
    await second.say("feature_flags", {})
    await until(lambda: comfy.heard)
    await comfy.say("feature_flags", max_upload_size=5)

    third = await stand.connect()
    await third.say("feature_flags", {})

    for tab in (first, second, third):
        assert await tab.hear_kind("feature_flags") == {"max_upload_size": 5}
    await comfy.say("feature_flags", max_upload_size=6)
    assert await third.hear_kind("feature_flags", 2) == {"max_upload_size": 6}
    assert len(comfy.heard) == 1


async def test_the_same_id_of_two_users_is_two_sockets_and_nobody_hears_the_other(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    named = [ALICE, BOB, UserId(IdKind.CLIENT, "tab"), None]
    clients = []
    for number, user in enumerate(named):
        known = set(comfy.registered)
        clients.append(await stand.connect(user))
        (own,) = set(comfy.registered) - known
        await comfy.registered[own].send_json({"type": "yours", "data": {"number": number}})

    for number, client in enumerate(clients):
        assert await client.hear_kind("yours") == {"number": number}
        assert client.of("status")[0]["sid"] == "tab"
    assert comfy.opened == 4


async def test_a_page_that_reconnects_within_the_linger_loses_no_event(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    await first.hear_kind("status")
    await first.socket.close()
    await until(lambda: stand.stats.client_sockets == 0)

    await comfy.say("executing", node="9", prompt_id="p")
    await comfy.say_bytes(jpeg_preview(100))
    await comfy.say("executed", node="9", prompt_id="p")
    await comfy.say("execution_success", prompt_id="p")
    await comfy.say("executing", node=None, prompt_id="p")
    await comfy.say_status(0)
    second = await stand.connect()
    await second.hear_until(lambda client: "released" in client.story("p"))

    assert second.kinds() == ["status", "executing", "executed", "execution_success", "executing"]
    assert all(isinstance(said, dict) for said in second.said), "a preview is not kept for anybody"
    assert comfy.opened == 1


async def test_what_waited_is_told_to_the_first_who_comes_and_not_again(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    await first.socket.close()
    await until(lambda: stand.stats.client_sockets == 0)
    await comfy.say("hello")

    second = await stand.connect()
    await second.hear_kind("hello")
    third = await stand.connect()
    await comfy.say("goodbye")
    await third.hear_kind("goodbye")

    assert third.kinds() == ["status", "goodbye"]


async def test_a_page_that_comes_back_later_has_a_new_socket_and_what_it_missed(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    stand.accept("p", stand.duty)
    await first.socket.close()
    await until(lambda: comfy.registered == {})
    comfy.history["p"] = finished("9")

    second = await stand.connect()
    await second.hear_until(lambda client: "released" in client.story("p"))

    assert comfy.opened == 2
    assert set(comfy.most_open.values()) == {1}


async def test_a_client_that_comes_while_the_socket_is_being_closed_waits_for_its_end(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    for _ in range(10):
        client = await stand.connect()
        await client.socket.close()
        await until(lambda: stand.stats.client_sockets == 0)
        await asyncio.sleep(0.298)  # the linger ends about now
        again = await stand.connect()
        await comfy.say("hello")
        await again.hear_kind("hello")
        await again.socket.close()

    assert set(comfy.most_open.values()) == {1}


async def test_a_server_that_names_the_running_node_is_believed_by_a_client_that_comes_back(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    comfy.resumes = "9"

    client = await stand.connect()

    assert await client.hear_kind("executing") == {"node": "9"}
    assert client.kinds() == ["status", "executing"]


async def test_a_server_without_a_greeting_is_heard_all_the_same(comfy: ScriptedComfy, stand: Stand) -> None:
    comfy.greets = False
    client = await stand.connect()

    await comfy.say("hello")
    await client.hear_kind("hello")

    assert client.kinds() == ["hello"]


async def test_a_client_is_greeted_with_the_first_status_that_comes(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    comfy.greets = False
    client = await stand.connect()
    await until(lambda: stand.stats.client_sockets == 1)

    await comfy.say_status(3)
    await comfy.say_status(2)
    await client.hear_kind("status", 2)

    assert [status.get("sid") for status in client.of("status")] == ["tab", None]


async def test_events_of_strangers_are_passed_on_and_noted(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()

    await comfy.say("execution_success", prompt_id="unknown")
    await client.hear_kind("execution_success")
    stand.accept("unknown", stand.duty)

    assert stand.ledger.unfinished() == []


async def test_a_prompt_of_somebody_else_with_the_same_id_is_not_waited_for(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    stand.accept("p", stand.duty, user=ALICE)
    comfy.history["p"] = finished()

    client = await stand.connect(None)
    await comfy.say("hello")
    await client.hear_kind("hello")

    assert client.kinds() == ["status", "hello"]
    assert stand.ledger.unfinished()
