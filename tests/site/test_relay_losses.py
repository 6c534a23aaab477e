"""A server's socket is lost while the client's stays open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.core.prompts.prompts import Outcome
from simulators.comfyui import ComfySimulator, serve
from tests.site.relay_stand import (
    ALICE,
    QUICK,
    Client,
    Rescue,
    ScriptedComfy,
    Stand,
    finished,
    pod,
    relay_before,
    sleeping,
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


async def lose(comfy: ScriptedComfy) -> None:
    """Cut the socket and wait until the relay is back."""
    opened = comfy.opened
    comfy.drop()
    await until(lambda: comfy.opened > opened and comfy.registered)


async def settled(comfy: ScriptedComfy, client: Client) -> None:
    """Listen until everything that was on its way has arrived."""
    await comfy.say("that is all")
    await client.hear_kind("that is all", len(client.of("that is all")) + 1)


async def test_a_lost_socket_is_opened_again_and_the_client_notices_nothing(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    comfy.resumes = "9"

    for _ in range(3):
        await lose(comfy)
    await comfy.say("hello")
    await client.hear_kind("hello")

    assert client.kinds() == ["status", "hello"]
    assert stand.stats.reconnects == 3
    assert set(comfy.most_open.values()) == {1}


async def test_a_count_that_changed_meanwhile_is_told(comfy: ScriptedComfy, stand: Stand) -> None:
    comfy.remaining = 1
    client = await stand.connect()
    await client.hear_kind("status")
    comfy.remaining = 4

    await lose(comfy)

    assert await client.hear_kind("status", 2) == {"status": {"exec_info": {"queue_remaining": 4}}}


async def test_a_server_that_is_away_for_long_is_found_again(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    comfy.refuses_with = 502
    comfy.drop()
    await until(lambda: len(comfy.requests) >= 6)

    comfy.refuses_with = None
    await until(lambda: comfy.registered)
    await comfy.say("hello")

    await client.hear_kind("hello")
    assert client.kinds() == ["status", "hello"]


async def test_a_server_that_answers_no_ping_is_left_and_found_again() -> None:
    comfy = ScriptedComfy()
    comfy.answers_pings = False
    async with comfy.serving(), relay_before(comfy.url, replace(QUICK, ping_s=0.1)) as stand:
        client = await stand.connect()
        listening = asyncio.ensure_future(client.hear_kind("hello"))

        await until(lambda: comfy.opened >= 2)
        comfy.answers_pings = True
        await until(lambda: comfy.opened >= 3 and comfy.registered)
        await comfy.say("hello")

        await listening
        assert set(comfy.most_open.values()) == {1}


async def test_the_feature_flags_are_said_again_first(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    await client.say("feature_flags", {"x": 1})
    await until(lambda: len(comfy.heard) == 1)
    comfy.refuses_with = 502
    comfy.drop()
    await until(lambda: stand.stats.upstream_sockets == 0)

    await client.say("later", {})
    comfy.refuses_with = None
    await until(lambda: len(comfy.heard) == 3)

    assert [said["type"] for said in comfy.heard if isinstance(said, dict)] == [
        "feature_flags",
        "feature_flags",
        "later",
    ]


async def test_a_prompt_that_still_runs_goes_on_as_if_nothing_had_been(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.queue = ["p"]
    await comfy.say("execution_start", prompt_id="p")

    await lose(comfy)
    await comfy.say("execution_success", prompt_id="p")
    await comfy.say("executing", node=None, prompt_id="p")
    await settled(comfy, client)

    assert client.story("p") == ["execution_start", "execution_success", "released"]
    assert stand.stats.made_up_endings == 0


async def test_a_missed_success_is_made_up_with_the_outputs_that_were_not_told(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    await comfy.say("execution_start", prompt_id="p")
    await comfy.say("executed", node="7", output={}, prompt_id="p")
    await client.hear_kind("executed")
    comfy.history["p"] = finished("7", "9")

    await lose(comfy)
    await client.hear_until(lambda client: "released" in client.story("p"))

    assert client.story("p") == ["execution_start", "executed", "executed", "execution_success", "released"]
    assert [executed["node"] for executed in client.of("executed")] == ["7", "9"]
    assert client.of("executed")[1]["output"] == {"images": [{"filename": "9.png"}]}
    assert stand.ledger.unfinished() == []
    assert stand.stats.made_up_endings == 1


async def test_a_missed_error_is_made_up_in_the_servers_words(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.history["p"] = finished(error="out of memory")

    await lose(comfy)
    await client.hear_until(lambda client: "released" in client.story("p"))

    assert client.story("p") == ["execution_start", "execution_cached", "execution_error", "released"]
    assert client.of("execution_error")[0]["exception_message"] == "out of memory"
    record = stand.ledger.find("p")
    assert record is not None
    assert record.outcome is Outcome.ERROR


async def test_a_missed_release_is_made_up_alone(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    await comfy.say("execution_success", prompt_id="p")
    await client.hear_kind("execution_success")
    comfy.history["p"] = finished()

    await lose(comfy)
    await client.hear_until(lambda client: "released" in client.story("p"))

    assert client.story("p") == ["execution_success", "released"]


async def test_an_ending_that_comes_twice_is_told_once(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.history["p"] = finished("9")
    comfy.looks_up.clear()
    await lose(comfy)
    await comfy.say("executed", node="9", output={}, prompt_id="p")
    await comfy.say("execution_success", prompt_id="p")
    await comfy.say("executing", node=None, prompt_id="p")

    comfy.looks_up.set()
    await settled(comfy, client)

    assert client.story("p") == [
        "execution_start",
        "execution_cached",
        "executed",
        "execution_success",
        "released",
    ]


async def test_made_up_endings_come_before_what_happened_later(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    stand.accept("q", stand.duty)
    comfy.history["p"], comfy.queue = finished(), ["q"]
    comfy.looks_up.clear()
    await lose(comfy)

    await comfy.say("execution_start", prompt_id="q")
    await comfy.say_status(1)
    await client.hear_kind("status", 2)
    comfy.looks_up.set()
    await client.hear_until(lambda client: client.story("q"))

    order = [
        said["data"]["prompt_id"]
        for said in client.said
        if isinstance(said, dict) and said["type"] != "status"
    ]
    assert order == ["p", "p", "p", "p", "q"]


async def test_events_do_not_wait_long_for_a_server_that_does_not_tell_its_past(comfy: ScriptedComfy) -> None:
    limits = replace(QUICK, hold_s=0.1, look_up_timeout_s=0.5)
    async with relay_before(comfy.url, limits) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.history["p"] = finished()
        comfy.looks_up.clear()
        await lose(comfy)

        await comfy.say("execution_start", prompt_id="q")
        await client.hear_kind("execution_start")
        assert client.story("p") == []

        comfy.looks_up.set()
        await client.hear_until(lambda client: "released" in client.story("p"))


async def test_events_of_many_bytes_do_not_wait_at_all(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, event_budget_bytes=10_000)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.looks_up.clear()
        await lose(comfy)

        await comfy.say("large", text="x" * 10_000)

        await client.hear_kind("large")


@pytest.mark.parametrize(
    "nonsense", [["a", "list"], {"queue_running": 3, "queue_pending": []}, {}, "text", "error"]
)
async def test_a_server_that_answers_nonsense_is_asked_again(
    comfy: ScriptedComfy, stand: Stand, nonsense: object
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    comfy.history["p"] = finished()
    comfy.queue_answer = nonsense
    comfy.queue_status = 500 if nonsense == "error" else 200
    await lose(comfy)
    await until(lambda: len([one for one in comfy.requests if one.path == "/queue"]) >= 2)
    assert client.story("p") == []

    comfy.queue_answer = None

    await client.hear_until(lambda client: "released" in client.story("p"))


async def test_a_prompt_that_nobody_knows_any_more_is_lost_with_an_error(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)
    await comfy.say("execution_start", prompt_id="p")
    await client.hear_kind("execution_start")

    await lose(comfy)
    await client.hear_until(lambda client: "released" in client.story("p"))
    await lose(comfy)
    await settled(comfy, client)

    assert client.story("p") == ["execution_start", "execution_error", "released"]
    assert client.of("execution_error")[0]["exception_message"] == "The server restarted and lost this prompt"
    record = stand.ledger.find("p")
    assert record is not None
    assert record.outcome is Outcome.LOST


async def test_a_prompt_with_an_odd_id_is_asked_for_byte_for_byte(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("a b/../ä?", stand.duty)

    await lose(comfy)
    await client.hear_kind("execution_error")

    paths = [one.raw_path for one in comfy.requests if "history" in one.path]
    assert set(paths) == {"/history/a%20b%2F..%2F%C3%A4%3F"}


async def test_the_past_is_asked_for_with_the_pods_token(comfy: ScriptedComfy, stand: Stand) -> None:
    stand.routes.set_private(ALICE, pod(comfy.url, token="secret"))
    client = await stand.connect()
    stand.accept("p", stand.routes.current(ALICE))

    await lose(comfy)
    await client.hear_kind("execution_error")

    assert {one.headers.get("X-Comfy-Gateway-Token") for one in comfy.requests} == {"secret"}


async def test_a_prompt_that_ended_before_the_client_came_is_told_to_it(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    stand.accept("p", stand.duty)
    comfy.history["p"] = finished("9")

    client = await stand.connect()
    await client.hear_until(lambda client: "released" in client.story("p"))

    assert client.kinds()[0] == "status"
    assert client.story("p").count("execution_success") == 1


async def test_both_tabs_hear_a_made_up_ending_once(comfy: ScriptedComfy, stand: Stand) -> None:
    tabs = [await stand.connect(), await stand.connect()]
    stand.accept("p", stand.duty)
    comfy.history["p"] = finished()

    await lose(comfy)
    for tab in tabs:
        await tab.hear_until(lambda client: "released" in client.story("p"))
    await comfy.say("that is all")

    for tab in tabs:
        await tab.hear_kind("that is all")
        assert tab.story("p") == ["execution_start", "execution_cached", "execution_success", "released"]


async def test_a_socket_that_the_server_has_forgotten_is_found_out_by_its_silence(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, audit_s=0.1)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.queue = ["p"]
        comfy.registered.clear()  # as after an overlapping socket of the same id has gone
        await until(lambda: len([one for one in comfy.requests if one.path == "/queue"]) >= 2)
        assert comfy.opened == 1

        comfy.queue, comfy.history["p"] = [], finished()
        await client.hear_until(lambda client: "released" in client.story("p"))
        await until(lambda: comfy.registered)

        assert comfy.opened == 2
        assert set(comfy.most_open.values()) == {1}


async def test_a_prompt_that_is_gone_from_a_server_that_stayed_is_found_out_by_its_silence(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, audit_s=0.1)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)

        await client.hear_until(lambda client: "released" in client.story("p"))

        assert client.story("p") == ["execution_error", "released"]
        assert stand.outcome("p") is Outcome.LOST
        assert comfy.opened == 1


async def test_a_prompt_that_arrives_while_its_server_is_asked_is_not_lost(comfy: ScriptedComfy) -> None:
    """One that is submitted again is the ledger's before it is in the queue."""
    rescue = Rescue()
    async with relay_before(comfy.url, rescuer=rescue) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.recalls.clear()
        comfy.drop()
        await until(lambda: any("history" in one.path for one in comfy.requests))

        comfy.queue = ["p"]
        comfy.recalls.set()
        await until(lambda: len([one for one in comfy.requests if one.path == "/queue"]) == 2)
        await settled(comfy, client)

        assert rescue.asked == []


async def test_an_audit_that_gets_no_answer_costs_nothing(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, audit_s=0.05)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.queue = ["p"]
        comfy.queue_answer = []

        await until(lambda: len([one for one in comfy.requests if one.path == "/queue"]) >= 3)
        await settled(comfy, client)

        assert comfy.opened == 1


async def test_a_real_restart_is_survived_with_the_finished_and_the_forgotten_prompts_told() -> None:
    simulator = ComfySimulator()
    async with AsyncExitStack() as life:
        served = await life.enter_async_context(serve(simulator))
        async with relay_before(served.url) as stand:
            client = await stand.connect()
            first = await stand.prompt(sleeping(0.0, seed=1))
            await client.hear_until(lambda client: "released" in client.story(first))
            lost = [await stand.prompt(sleeping(30.0, seed=2)), await stand.prompt(sleeping(30.0, seed=3))]
            await client.hear_kind("progress")

            await life.aclose()
            async with serve(simulator, port=served.port):
                for prompt_id in lost:
                    await client.hear_until(lambda client, one=prompt_id: "released" in client.story(one))  # type: ignore[misc]
                after = await stand.prompt(sleeping(0.0, seed=4))
                await client.hear_until(lambda client: "released" in client.story(after))

                assert client.story(first).count("execution_success") == 1
                assert [client.story(one).count("execution_error") for one in lost] == [1, 1]
                assert client.story(lost[1]) == ["execution_error", "released"]
                assert client.story(after)[-2:] == ["execution_success", "released"]


async def test_a_real_server_whose_sockets_are_cut_mid_prompt_loses_no_ending() -> None:
    simulator = ComfySimulator()
    async with serve(simulator) as served, relay_before(served.url) as stand:
        client = await stand.connect()
        prompts = [await stand.prompt(sleeping(0.08, seed=number)) for number in range(6)]

        async def cut() -> None:
            for _ in range(5):
                await asyncio.sleep(0.1)
                simulator.drop_sockets()

        cutting = asyncio.ensure_future(cut())
        await client.hear_until(lambda client: all("released" in client.story(one) for one in prompts))
        await cutting

        for prompt_id in prompts:
            story = client.story(prompt_id)
            assert story.count("execution_success") == story.count("released") == 1
            assert story[-2:] == ["execution_success", "released"]


async def test_an_ending_that_comes_while_the_server_is_still_asked_is_told_once(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, hold_s=0.05, look_up_timeout_s=5.0)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        comfy.history["p"] = finished()
        comfy.looks_up.clear()
        await lose(comfy)
        await until(lambda: len([one for one in comfy.requests if one.path == "/queue"]) == 2)

        await comfy.say("execution_success", prompt_id="p")
        await comfy.say("executing", node=None, prompt_id="p")
        await client.hear_until(lambda client: "released" in client.story("p"))
        comfy.looks_up.set()
        await until(lambda: any("history" in one.path for one in comfy.requests))
        await settled(comfy, client)

        assert client.story("p") == [
            "execution_start",
            "execution_cached",
            "execution_success",
            "released",
        ]


async def test_a_server_that_talks_is_not_asked(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, audit_s=0.2)) as stand:
        client = await stand.connect()
        stand.accept("p", stand.duty)
        for number in range(25):
            await comfy.say("progress", value=number, prompt_id="p")
            await asyncio.sleep(0.02)
        await client.hear_kind("progress", 25)

        assert not any(one.path == "/queue" for one in comfy.requests)


async def test_a_server_that_does_not_answer_the_closing_handshake_is_left_in_the_end(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, linger_s=0.05, close_timeout_s=0.3)) as stand:
        client = await stand.connect()
        await client.hear_kind("status")
        comfy.closes.clear()
        await client.socket.close()
        await until(lambda: comfy.registered and stand.stats.client_sockets == 0)
        await asyncio.sleep(0.1)

        again = asyncio.ensure_future(stand.connect())
        await asyncio.sleep(0.05)
        assert comfy.opened == 1, "not before the first is closed or given up"

        client = await again
        await client.hear_kind("status")


async def test_a_client_does_not_wait_for_ever_for_a_socket_that_is_being_closed(
    comfy: ScriptedComfy,
) -> None:
    limits = replace(QUICK, linger_s=0.01, close_timeout_s=3.0, connect_timeout_s=0.2)
    async with relay_before(comfy.url, limits) as stand:
        comfy.closes.clear()
        client = await stand.connect()
        await client.socket.close()
        await asyncio.sleep(0.1)

        assert (await stand.refusal())[0] == 504
        waiting = asyncio.ensure_future(stand.refusal())
        await asyncio.sleep(0.05)
        await stand.relay.aclose()

        assert (await waiting)[0] == 503


async def test_feature_flags_said_while_the_server_is_away_are_its_first_message(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    comfy.refuses_with = 502
    comfy.drop()
    await until(lambda: stand.stats.upstream_sockets == 0)

    await client.say("feature_flags", {"x": 1})
    await client.say("later", {})
    await until(lambda: not client.socket.closed and len(comfy.requests) >= 3)
    comfy.refuses_with = None
    await until(lambda: len(comfy.heard) == 2)

    assert [said["type"] for said in comfy.heard if isinstance(said, dict)] == ["feature_flags", "later"]


class BrokenOnce(SystemClock):
    """A clock that fails once when it is told to."""

    def __init__(self) -> None:
        self.is_broken = False

    def monotonic(self) -> float:
        if self.is_broken:
            self.is_broken = False
            raise ValueError("no time")
        return super().monotonic()


async def test_a_fault_of_our_own_costs_one_connection_and_not_the_page(
    comfy: ScriptedComfy, caplog: pytest.LogCaptureFixture
) -> None:
    clock = BrokenOnce()
    async with relay_before(comfy.url, clock=clock) as stand:
        client = await stand.connect()
        await client.hear_kind("status")
        stand.accept("p", stand.duty)
        comfy.history["p"] = finished()

        clock.is_broken = True
        await comfy.say("hello")
        await client.hear_until(lambda client: "released" in client.story("p"))

        assert "no time" in caplog.text
        assert stand.stats.reconnects == 1


async def test_a_pod_whose_socket_is_lost_is_looked_at_and_no_other_server(comfy: ScriptedComfy) -> None:
    async with ScriptedComfy().serving() as shared, relay_before(shared.url) as stand:
        alice = await stand.connect()
        await alice.hear_kind("status")
        await lose(shared)
        assert stand.nudged == []
        stand.routes.set_private(ALICE, pod(comfy.url))
        await until(lambda: comfy.registered)
        await lose(comfy)
        assert stand.nudged == [ALICE]
        await alice.socket.close()
        await until(lambda: not comfy.registered)
        assert stand.nudged == [ALICE], "who goes away is no sign"
