"""One beginning and one end for each prompt, whoever knows of it: the server, the ledger or the rescuer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from comfy_gateway.core.prompts.prompts import Outcome
from simulators.comfyui import ComfySimulator, serve
from tests.site.relay_stand import (
    ALICE,
    QUICK,
    Client,
    Rescue,
    ScriptedComfy,
    Stand,
    duty,
    finished,
    pod,
    relay_before,
    sleeping,
    until,
)

WHOLE = ["execution_start", "execution_cached", "execution_success", "released"]


@pytest.fixture
async def comfy() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.fixture
async def private() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.fixture
async def stand(comfy: ScriptedComfy) -> AsyncIterator[Stand]:
    async with relay_before(comfy.url) as standing:
        yield standing


async def lose(comfy: ScriptedComfy) -> None:
    """Cut the socket and wait until the relay is back and has asked what became of its prompts."""
    opened, asked = comfy.opened, looked_for(comfy, "/queue")
    comfy.drop()
    await until(lambda: comfy.opened > opened and comfy.registered and looked_for(comfy, "/queue") > asked)


async def end(comfy: ScriptedComfy, prompt_id: str = "p", verdict: str = "execution_success") -> None:
    await comfy.say(verdict, prompt_id=prompt_id)
    await comfy.say("executing", node=None, prompt_id=prompt_id)


async def told(client: Client, prompt_id: str = "p") -> list[str]:
    """The whole story, when it is over."""
    await client.hear_until(lambda client: "released" in client.story(prompt_id))
    return client.story(prompt_id)


async def nothing_more(comfy: ScriptedComfy, client: Client) -> None:
    await comfy.say("that is all")
    await client.hear_kind("that is all", len(client.of("that is all")) + 1)


async def nothing_more_than_status(comfy: ScriptedComfy, client: Client) -> None:
    """A status is never held back, so what was said before has arrived at the relay when it is told."""
    await comfy.say_status(comfy.remaining + 1)
    await client.hear_kind("status", len(client.of("status")) + 1)


def looked_for(comfy: ScriptedComfy, path: str) -> int:
    return len([one for one in comfy.requests if one.path.startswith(path)])


# -- the ledger hears of it


async def test_the_ledger_hears_that_a_prompt_has_begun(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)

    await comfy.say("execution_start", prompt_id="p")
    await client.hear_kind("execution_start")

    assert stand.outcome("p") is Outcome.RUNNING


async def test_files_are_noted_with_the_server_that_made_them_and_by_its_own_names(
    private: ScriptedComfy, stand: Stand
) -> None:
    output = {"images": [{"filename": "a_00001_.png", "subfolder": "x", "type": "output"}]}
    stand.routes.set_private(ALICE, pod(private.url))
    client = await stand.connect()

    await private.say("executed", node="9", output=output, prompt_id="p")
    await private.say("executed", node="10", output=None, prompt_id="p")
    await client.hear_kind("executed", 2)

    assert stand.notes.noted == [(ALICE.key, pod("http://x").id, "p", output)]
    (shown, nothing) = [executed["output"] for executed in client.of("executed")]
    assert shown == {"images": [{"filename": "a_00001_.png", "subfolder": "private-1/x", "type": "output"}]}
    assert nothing is None


async def test_files_of_an_ending_that_is_made_up_are_noted_and_shown_like_any_other(
    private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    client = await stand.connect()
    stand.accept("p", stand.routes.current(ALICE))
    entry = finished("9")
    image = {"filename": "9.png", "subfolder": "", "type": "temp"}
    entry["outputs"] = {"9": {"images": [image]}}
    private.history["p"] = entry

    await lose(private)
    await told(client)

    assert stand.notes.noted == [(ALICE.key, pod("http://x").id, "p", entry["outputs"])]
    assert client.of("executed")[0]["output"] == {"images": [image | {"subfolder": "private-1"}]}


async def test_what_the_ledger_knows_better_is_told_instead_of_the_servers_verdict(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, ending_grace_s=5.0)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        await comfy.say("execution_start", prompt_id="p")
        await client.hear_kind("execution_start")

        stand.ledger.end("p", Outcome.INTERRUPTED)
        await end(comfy)
        await nothing_more(comfy, client)

        assert client.story("p") == ["execution_start", "execution_interrupted", "released"]
        assert stand.outcome("p") is Outcome.INTERRUPTED


async def test_what_the_ledger_knows_better_is_told_instead_of_the_servers_history(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, ending_grace_s=5.0)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.history["p"] = finished("9")

        stand.ledger.end("p", Outcome.INTERRUPTED)
        await lose(comfy)

        assert await told(client) == ["execution_interrupted", "released"]


# -- endings that the ledger knows and no socket tells


async def test_the_servers_own_words_are_told_when_they_come_soon_after_the_ledger_knew(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, ending_grace_s=5.0)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)

        stand.ledger.end("p", Outcome.DONE)
        await end(comfy)

        assert await told(client) == ["execution_success", "released"]
        assert stand.stats.made_up_endings == 0
        assert looked_for(comfy, "/history") == 0


async def test_a_prompt_that_somebody_took_out_of_the_queue_is_told_as_interrupted(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)

    stand.ledger.end("p", Outcome.INTERRUPTED)

    assert await told(client) == ["execution_interrupted", "released"]
    assert client.of("execution_interrupted")[0]["executed"] == []
    assert comfy.opened == 1, "the server says nothing of this, and it is none of its faults"


async def test_an_ending_of_a_deaf_socket_is_told_from_the_history_and_the_socket_renewed(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.history["p"] = finished("9")

    stand.ledger.end("p", Outcome.DONE)

    assert await told(client) == ["execution_start", "execution_cached", "executed", *WHOLE[2:]]
    await until(lambda: comfy.opened == 2 and comfy.registered)
    await nothing_more(comfy, client)


async def test_an_ending_is_told_from_the_entry_that_is_kept_when_its_server_is_gone(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, lost_tries=0)) as stand:
        client = await stand.connect()
        async with ScriptedComfy().serving() as private:
            private.queue = ["p"]
            stand.routes.set_private(ALICE, pod(private.url))
            stand.accept("p", stand.routes.current(ALICE))
            await until(lambda: private.registered)
            stand.routes.clear_private(ALICE)
        await until(lambda: stand.stats.upstream_sockets == 1)
        stand.ledger.keep_entry("p", finished("9"))

        stand.ledger.end("p", Outcome.DONE)

        assert await told(client) == ["execution_start", "execution_cached", "executed", *WHOLE[2:]]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome.DONE, "execution_success"),
        (Outcome.ERROR, "execution_error"),
        (Outcome.LOST, "execution_error"),
    ],
)
async def test_an_ending_of_which_there_is_no_entry_is_told_all_the_same(
    comfy: ScriptedComfy, stand: Stand, outcome: Outcome, verdict: str
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)

    stand.ledger.end("p", outcome)

    assert await told(client) == [verdict, "released"]


async def test_a_server_that_does_not_answer_costs_the_outputs_but_not_the_ending(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, entry_timeout_s=0.2)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.history["p"] = finished("9")
        comfy.recalls.clear()

        stand.ledger.end("p", Outcome.DONE)

        assert await told(client) == ["execution_success", "released"]


async def test_a_page_hears_of_a_prompt_that_its_server_forgot_with_all_sockets_open() -> None:
    simulator = ComfySimulator()
    async with (
        serve(simulator) as served,
        relay_before(served.url, replace(QUICK, audit_s=0.2)) as stand,
    ):
        client = await stand.connect()
        prompt = await stand.prompt(sleeping(30.0))
        await client.hear_kind("progress_state")

        simulator.forget()

        assert (await told(client, prompt))[-2:] == ["execution_error", "released"]


async def test_news_about_a_prompt_that_ended_long_ago_tell_nobody_anything(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    stand.accept("p", stand.duty)
    stand.ledger.end("p", Outcome.DONE)
    client = await stand.connect()
    record = stand.ledger.find("p")
    assert record is not None

    stand.ledger.accept(replace(record, is_hidden=True))
    await asyncio.sleep(2 * QUICK.ending_grace_s)
    await nothing_more(comfy, client)

    assert client.story("p") == []


async def test_what_still_runs_is_said_again_after_an_ending_that_was_made_up(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    """The front end takes any release for that of the prompt that it shows."""
    client = await stand.connect()
    stand.accept("p", stand.duty)
    stand.accept("q", stand.duty)
    await comfy.say("execution_start", prompt_id="p")
    await comfy.say("executing", node="4", prompt_id="p")
    await client.hear_kind("executing")

    stand.ledger.end("q", Outcome.INTERRUPTED)
    await told(client, "q")
    await client.hear_kind("executing", 3)

    assert client.said[-2:] == [
        {"type": "execution_start", "data": {"prompt_id": "p"}},
        {"type": "executing", "data": {"node": "4", "prompt_id": "p"}},
    ]


# -- a socket is lost while a prompt is under way


async def test_an_output_missed_while_the_socket_was_lost_is_told_before_the_verdict(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.queue = ["p"]
    await comfy.say("execution_start", prompt_id="p")
    await comfy.say("executed", node="7", output={}, prompt_id="p")
    await client.hear_kind("executed")

    await lose(comfy)
    await comfy.say("executed", node="8", output={}, prompt_id="p")
    await comfy.say("execution_success", prompt_id="p")
    comfy.queue, comfy.history["p"] = [], finished("7", "8", "9")
    await comfy.say("executing", node=None, prompt_id="p")
    await comfy.say("execution_start", prompt_id="q")
    await client.hear_until(lambda client: client.story("q"))

    assert client.story("p") == ["execution_start", *["executed"] * 3, "execution_success", "released"]
    assert [executed["node"] for executed in client.of("executed")] == ["7", "8", "9"]
    assert client.said[-1] == {"type": "execution_start", "data": {"prompt_id": "q"}}
    assert stand.stats.made_up_endings == 0


async def test_a_verdict_missed_between_two_sockets_is_told_before_the_release_that_was_not(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.queue = ["p"]
    await comfy.say("execution_start", prompt_id="p")
    await lose(comfy)

    comfy.queue, comfy.history["p"] = [], finished("9", error="out of memory")
    await comfy.say("executing", node=None, prompt_id="p")

    assert await told(client) == ["execution_start", "executed", "execution_error", "released"]
    assert stand.outcome("p") is Outcome.ERROR


async def test_two_gaps_in_a_row_are_filled_each_before_its_verdict(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    for prompt_id in ("p", "q"):
        stand.accept(prompt_id, stand.duty)
    comfy.queue = ["p", "q"]
    comfy.looks_up.clear()
    await lose(comfy)
    comfy.history = {"p": finished("1", prompt_id="p"), "q": finished("2", prompt_id="q")}

    for prompt_id in ("p", "q"):
        await comfy.say("progress", value=1, prompt_id=prompt_id)
        await end(comfy, prompt_id)
    comfy.looks_up.set()

    assert await told(client, "q") == ["execution_start", "executed", "execution_success", "released"]
    assert client.story("p") == client.story("q")
    assert [executed["node"] for executed in client.of("executed")] == ["1", "2"]


async def test_a_verdict_does_not_wait_long_for_what_was_missed(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, hold_s=0.2)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.queue = ["p"]
        await comfy.say("execution_start", prompt_id="p")
        await lose(comfy)
        comfy.recalls.clear()

        await end(comfy)

        assert await told(client) == ["execution_start", "execution_success", "released"]


async def test_a_verdict_without_a_release_waits_only_for_the_history(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, release_wait_s=0.05)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.queue = ["p"]
        await comfy.say("execution_start", prompt_id="p")
        await lose(comfy)
        comfy.queue, comfy.history["p"] = [], finished("9")

        await comfy.say("execution_error", prompt_id="p")
        await client.hear_kind("execution_error")

        assert client.story("p") == ["execution_start", "executed", "execution_error"]


async def test_a_socket_lost_while_a_verdict_waits_does_not_cost_the_verdict(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.queue = ["p"]
    await comfy.say("execution_start", prompt_id="p")
    await lose(comfy)
    comfy.recalls.clear()
    await comfy.say("execution_success", prompt_id="p")
    await until(lambda: stand.stats.upstream_sockets == 1)
    await nothing_more_than_status(comfy, client)

    comfy.drop()

    assert await told(client) == ["execution_start", "execution_success", "released"]
    assert stand.outcome("p") is Outcome.DONE


async def test_too_many_bytes_behind_a_verdict_that_waits_let_it_go(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, event_budget_bytes=10_000)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.queue = ["p"]
        await comfy.say("execution_start", prompt_id="p")
        await lose(comfy)
        comfy.recalls.clear()
        await end(comfy)

        await comfy.say("large", text="x" * 10_000)
        await client.hear_kind("large")
        comfy.recalls.set()
        await nothing_more(comfy, client)

        assert client.story("p") == ["execution_start", "execution_success", "released"]


async def test_a_start_that_was_missed_is_told_with_the_first_event_that_was_not(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.queue = ["p"]
    await lose(comfy)

    await comfy.say("executing", node="4", prompt_id="p")
    await client.hear_kind("executing")

    assert client.story("p") == ["execution_start", "executing"]
    assert stand.outcome("p") is Outcome.RUNNING


async def test_a_prompt_that_starts_after_the_socket_came_back_has_no_gap(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.queue = ["p"]
    await lose(comfy)
    comfy.recalls.clear()

    await comfy.say("execution_start", prompt_id="p")
    await end(comfy)

    assert await told(client) == ["execution_start", "execution_success", "released"]
    assert looked_for(comfy, "/history") == 0


async def test_after_the_verdict_a_lost_socket_is_enough_for_the_release(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        await comfy.say("execution_success", prompt_id="p")
        await client.hear_kind("execution_success")
        comfy.refuses_with = 502

        comfy.drop()

        assert await told(client) == ["execution_success", "released"]
        comfy.refuses_with = None
        await until(lambda: comfy.registered)
        await comfy.say("executing", node=None, prompt_id="p")
        await nothing_more(comfy, client)
        assert client.story("p") == ["execution_success", "released"]


async def test_a_page_is_told_the_count_when_a_server_is_given_up(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, lost_tries=0)) as stand:
        client = await stand.connect()
        await client.hear_kind("status")
        async with ScriptedComfy().serving() as private:
            private.queue = ["p"]
            stand.routes.set_private(ALICE, pod(private.url))
            stand.accept("p", stand.routes.current(ALICE))
            await until(lambda: private.registered and len(comfy.registered) == 1)
            stand.routes.clear_private(ALICE)

        await client.hear_kind("status", 2)

        assert client.of("status")[1] == {"status": {"exec_info": {"queue_remaining": 0}}}


# -- a server has lost a prompt, and somebody else decides what becomes of it


@pytest.fixture
def rescue() -> Rescue:
    return Rescue()


@pytest.fixture
async def rescued(comfy: ScriptedComfy, rescue: Rescue) -> AsyncIterator[Stand]:
    async with relay_before(comfy.url, rescuer=rescue) as standing:
        yield standing


async def test_nothing_is_told_of_a_forgotten_prompt_until_it_is_decided(
    comfy: ScriptedComfy, rescue: Rescue, rescued: Stand
) -> None:
    client = await rescued.connect()
    rescued.accept("p", rescued.duty)
    await comfy.say("execution_start", prompt_id="p")

    await lose(comfy)
    await until(lambda: rescue.asked)
    await nothing_more(comfy, client)
    assert client.story("p") == ["execution_start"]
    assert rescue.asked == [("p", "duty-0")]

    rescued.ledger.end("p", Outcome.LOST)

    assert await told(client) == ["execution_start", "execution_error", "released"]


async def test_a_prompt_that_is_gone_without_a_cut_is_asked_about_too(comfy: ScriptedComfy) -> None:
    rescue = Rescue()
    async with relay_before(comfy.url, replace(QUICK, audit_s=0.1), rescuer=rescue) as stand:
        await stand.connect()
        stand.accept("p", stand.duty)

        await until(lambda: len(rescue.asked) >= 2)

        assert set(rescue.asked) == {("p", "duty-0")}


async def test_a_prompt_submitted_again_to_the_same_server_is_told_with_one_end(
    comfy: ScriptedComfy, rescue: Rescue, rescued: Stand
) -> None:
    client = await rescued.connect()
    rescued.accept("p", rescued.duty)
    await comfy.say("execution_start", prompt_id="p")
    await comfy.say("executed", node="7", output={}, prompt_id="p")
    await lose(comfy)
    await until(lambda: rescue.asked)

    rescued.accept("p", rescued.duty, replays=1)
    for node in ("7", "9"):
        await comfy.say("executed", node=node, output={}, prompt_id="p")
    await end(comfy)

    assert await told(client) == ["execution_start", *["executed"] * 3, "execution_success", "released"]


async def test_a_prompt_rescued_in_the_middle_is_told_from_its_new_server_and_the_dead_one_says_no_more(
    comfy: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    client = await stand.connect()
    stand.accept("p", pod(private.url))
    stand.accept("other", pod(private.url))
    await private.say("execution_start", prompt_id="p")
    await private.say("executed", node="7", output={}, prompt_id="p")
    await client.hear_kind("executed")

    stand.routes.clear_private(ALICE)
    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
    stand.accept("p", duty(comfy.url), replays=1)
    await private.say("executed", node="8", output={}, prompt_id="p")
    await end(private, verdict="execution_error")
    await private.say("last words")
    await client.hear_kind("last words")
    await comfy.say("execution_start", prompt_id="p")
    await comfy.say("executed", node="7", output={}, prompt_id="p")
    await end(comfy)

    assert await told(client) == [
        *("execution_start", "executed"),
        *("execution_start", "executed", "execution_success", "released"),
    ]
    assert stand.outcome("p") is Outcome.DONE
    assert [backend_id for _, backend_id, _, _ in stand.notes.noted] == []


async def test_of_a_prompt_that_was_moved_nobody_is_told_that_it_runs_where_it_was(
    comfy: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    first = await stand.connect()
    stand.accept("p", pod(private.url))
    stand.accept("other", pod(private.url))
    await private.say("execution_start", prompt_id="p")
    await private.say("executing", node="7", prompt_id="p")
    await first.hear_kind("executing")

    stand.accept("p", duty(comfy.url), replays=1)
    second = await stand.connect()
    await private.say("hello")
    await second.hear_kind("hello")

    assert second.kinds() == ["status", "hello"]


async def test_a_real_restart_with_a_rescuer_ends_each_prompt_once() -> None:
    simulator, rescue = ComfySimulator(), Rescue()
    async with serve(simulator) as served, relay_before(served.url, rescuer=rescue) as stand:
        client = await stand.connect()
        prompts = [await stand.prompt(sleeping(0.4, seed=number)) for number in range(3)]
        await client.hear_kind("progress")

        simulator.forget()
        simulator.drop_sockets()
        await until(lambda: len(rescue.asked) >= 3)
        for number, prompt_id in enumerate(prompts):
            stand.accept(prompt_id, stand.duty, replays=1)
            await stand.submit(sleeping(0.02, seed=number), stand.duty, prompt_id=prompt_id)
        for prompt_id in prompts:
            await told(client, prompt_id)

        for prompt_id in prompts:
            story = client.story(prompt_id)
            assert story.count("execution_success") == story.count("released") == 1
            assert story[-2:] == ["execution_success", "released"]
            assert stand.outcome(prompt_id) is Outcome.DONE
