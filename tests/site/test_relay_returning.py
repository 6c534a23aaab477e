"""Clients that go away and come back: each prompt ends for them once, and none without their hearing of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from comfy_gateway.core.prompts.prompts import Outcome
from simulators.comfyui import ComfySimulator, serve
from tests.site.relay_stand import (
    ALICE,
    QUICK,
    Client,
    ScriptedComfy,
    Stand,
    duty,
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


async def end(comfy: ScriptedComfy, prompt_id: str = "p") -> None:
    await comfy.say("executed", node="9", output={}, prompt_id=prompt_id)
    await comfy.say("execution_success", prompt_id=prompt_id)
    await comfy.say("executing", node=None, prompt_id=prompt_id)


def cut(client: Client) -> None:
    """The client's connection ends without a word, whatever is still in it."""
    assert client.socket._response.connection is not None
    transport = client.socket._response.connection.transport
    assert isinstance(transport, asyncio.Transport)
    transport.abort()


async def vanish(stand: Stand, client: Client) -> None:
    """The client is cut off, and the relay has seen it."""
    cut(client)
    await client.socket.close()
    await until(lambda: stand.stats.client_sockets == 0)


async def leave(stand: Stand, client: Client, comfy: ScriptedComfy) -> None:
    """The client goes away for longer than its upstream socket lives."""
    await client.socket.close()
    await until(lambda: stand.stats.upstream_sockets == 0 and comfy.registered == {})


# -- what was sent and has not arrived


async def test_an_end_that_was_sent_to_a_client_which_never_read_it_is_told_to_the_next(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    await first.hear_kind("status")
    stand.accept("p", stand.duty)
    await end(comfy)
    await until(lambda: stand.outcome("p") is Outcome.DONE)
    await vanish(stand, first)

    second = await stand.connect()
    await second.hear_until(lambda client: "released" in client.story("p"))

    assert second.kinds() == ["status", "executed", "execution_success", "executing"]


async def test_an_end_that_was_read_is_not_told_again(comfy: ScriptedComfy, stand: Stand) -> None:
    first = await stand.connect()
    stand.accept("p", stand.duty)
    await end(comfy)
    await first.hear_until(lambda client: "released" in client.story("p"))
    await comfy.say("hello")
    await first.hear_kind("hello")  # its library has answered the pings before it
    await vanish(stand, first)

    second = await stand.connect()
    await comfy.say("that is all")
    await second.hear_kind("that is all")

    assert second.kinds() == ["status", "that is all"]


async def test_a_client_that_reconnects_misses_nothing_although_its_old_socket_is_not_known_to_be_dead(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    mute = await stand.connect(autoping=False)
    await mute.hear_kind("status")
    stand.accept("p", stand.duty)
    await end(comfy)
    await until(lambda: stand.outcome("p") is Outcome.DONE)

    again = await stand.connect()

    await again.hear_until(lambda client: "released" in client.story("p"))
    assert stand.stats.client_sockets == 2


async def test_of_a_client_that_never_confirms_anything_only_the_last_seconds_are_told_again(
    comfy: ScriptedComfy,
) -> None:
    async with relay_before(comfy.url, replace(QUICK, repeat_s=0.1)) as stand:
        first = await stand.connect(autoping=False)
        await first.hear_kind("status")
        stand.accept("p", stand.duty)
        await end(comfy)
        await until(lambda: stand.outcome("p") is Outcome.DONE)
        await asyncio.sleep(0.2)
        await vanish(stand, first)

        second = await stand.connect()
        await comfy.say("that is all")
        await second.hear_kind("that is all")

        assert second.kinds() == ["status", "that is all"]


async def test_pongs_that_nobody_asked_for_confirm_nothing(comfy: ScriptedComfy, stand: Stand) -> None:
    first = await stand.connect(autoping=False)
    await first.hear_kind("status")
    stand.accept("p", stand.duty)
    for payload in (b"7", b"9" * 30, b"\xff", b""):
        await first.socket.pong(payload)
    await end(comfy)
    await until(lambda: stand.outcome("p") is Outcome.DONE)
    await vanish(stand, first)

    second = await stand.connect()

    await second.hear_until(lambda client: "released" in client.story("p"))


async def test_a_client_that_reconnects_every_150_ms_misses_no_end() -> None:
    """Each of its sockets is cut with something in it that was not read."""
    async with (
        serve(ComfySimulator()) as served,
        relay_before(served.url, replace(QUICK, linger_s=5.0)) as stand,
    ):
        heard: set[tuple[str, str]] = set()

        async def come_and_go() -> None:
            client = await stand.connect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.hear_all_until_closed()
            await asyncio.sleep(0.05)
            heard.update((one, kind) for one in prompts for kind in client.story(one))
            cut(client)

        prompts: list[str] = []
        await come_and_go()
        prompts += [await stand.prompt(sleeping(0.03, seed=number)) for number in range(25)]
        while stand.ledger.unfinished():
            await come_and_go()
        await come_and_go()

        assert len(stand.clients) > 6
        missed = {
            (prompt_id, kind)
            for prompt_id in prompts
            for kind in ("executed", "execution_success", "released")
            if (prompt_id, kind) not in heard
        }
        assert missed == set()


# -- a client that was away for longer than its upstream socket lives


async def test_an_end_that_came_while_the_socket_still_lingered_is_told_after_a_longer_absence(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    stand.accept("p", stand.duty)
    await first.hear_kind("status")
    await first.socket.close()
    await until(lambda: stand.stats.client_sockets == 0)
    await end(comfy)
    comfy.history["p"] = finished("9")
    await until(lambda: stand.stats.upstream_sockets == 0)

    second = await stand.connect()
    await second.hear_until(lambda client: "released" in client.story("p"))

    assert second.story("p")[-3:] == ["executed", "execution_success", "released"]
    await comfy.say("that is all")
    await second.hear_kind("that is all")
    assert second.story("p").count("execution_success") == second.story("p").count("released") == 1


async def test_an_end_that_others_noted_while_the_client_was_away_is_told_from_the_entry_that_is_kept(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    async with ScriptedComfy().serving() as private:
        private.queue = ["p"]
        stand.routes.set_private(ALICE, pod(private.url))
        first = await stand.connect()
        stand.accept("p", pod(private.url))
        await leave(stand, first, private)
    stand.ledger.keep_entry("p", finished("9"))
    stand.ledger.end("p", Outcome.DONE)
    stand.routes.clear_private(ALICE)

    second = await stand.connect()
    await second.hear_until(lambda client: "released" in client.story("p"))

    assert second.story("p")[-3:] == ["executed", "execution_success", "released"]


async def test_an_end_that_was_heard_before_the_client_left_is_not_told_again(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    stand.accept("p", stand.duty)
    await end(comfy)
    await comfy.say("hello")
    await first.hear_kind("hello")
    await leave(stand, first, comfy)
    comfy.history["p"] = finished("9")

    second = await stand.connect()
    await asyncio.sleep(2 * QUICK.ending_grace_s)
    await comfy.say("that is all")
    await second.hear_kind("that is all")

    assert second.kinds() == ["status", "that is all"]


async def test_a_client_that_comes_back_in_the_middle_hears_the_rest_and_the_outputs_that_it_missed(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    stand.accept("p", stand.duty)
    await comfy.say("execution_start", prompt_id="p")
    await first.hear_kind("execution_start")
    comfy.queue = ["p"]
    await leave(stand, first, comfy)

    second = await stand.connect()
    await comfy.say("executing", node="4", prompt_id="p")
    await second.hear_kind("executing")
    comfy.history["p"] = finished("7", "9")
    await end(comfy)
    await second.hear_until(lambda client: "released" in client.story("p"))

    assert second.story("p") == [
        *("execution_start", "executing", "executed", "executed"),
        *("execution_success", "released"),
    ]
    assert sorted(executed["node"] for executed in second.of("executed")) == ["7", "9"]


async def test_a_client_that_missed_two_ends_and_goes_again_before_they_are_told_hears_them_the_next_time(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    first = await stand.connect()
    for prompt_id in ("p", "q"):
        stand.accept(prompt_id, stand.duty)
    comfy.queue = ["p", "q"]
    await first.hear_kind("status")
    await leave(stand, first, comfy)
    for prompt_id in ("p", "q"):
        comfy.history[prompt_id] = finished("9", prompt_id=prompt_id)
        stand.ledger.end(prompt_id, Outcome.DONE)
    comfy.queue = []
    comfy.recalls.clear()
    hasty = await stand.connect()
    await leave(stand, hasty, comfy)
    comfy.recalls.set()

    last = await stand.connect()
    for prompt_id in ("p", "q"):
        await last.hear_until(lambda client, one=prompt_id: "released" in client.story(one))  # type: ignore[misc]

    assert hasty.story("p") == []


async def test_a_script_with_a_lasting_id_is_not_told_of_prompts_that_it_never_waited_for(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    stand.accept("p", stand.duty)
    stand.ledger.end("p", Outcome.DONE)
    comfy.history["p"] = finished("9")

    client = await stand.connect()
    await asyncio.sleep(2 * QUICK.ending_grace_s)
    await comfy.say("that is all")
    await client.hear_kind("that is all")

    assert client.kinds() == ["status", "that is all"]


async def test_two_tabs_of_which_one_is_away_lose_nothing(comfy: ScriptedComfy, stand: Stand) -> None:
    stays, goes = await stand.connect(), await stand.connect()
    stand.accept("p", stand.duty)
    await goes.hear_kind("status")
    await goes.socket.close()
    await until(lambda: stand.stats.client_sockets == 1)

    await end(comfy)
    await stays.hear_until(lambda client: "released" in client.story("p"))
    back = await stand.connect()
    await comfy.say("executed", node="3", output={}, prompt_id="q")
    for tab in (stays, back):
        await tab.hear_until(lambda client: client.story("q"))

    assert comfy.opened == 1


async def test_a_client_away_during_a_whole_move_comes_back_to_everything(comfy: ScriptedComfy) -> None:
    """It left on duty with two prompts running, and comes back with a pod on which one of them was submitted again."""
    async with ScriptedComfy().serving() as private, relay_before(comfy.url) as stand:
        first = await stand.connect()
        for prompt_id in ("p", "q"):
            stand.accept(prompt_id, duty(comfy.url))
        comfy.queue = ["p", "q"]
        await leave(stand, first, comfy)
        stand.routes.set_private(ALICE, pod(private.url))
        stand.accept("q", pod(private.url), replays=1)
        private.queue = ["q"]

        second = await stand.connect()
        await until(lambda: comfy.registered and private.registered)
        await end(comfy, "p")
        await private.say("execution_start", prompt_id="q")
        await end(private, "q")
        for prompt_id in ("p", "q"):
            await second.hear_until(lambda client, one=prompt_id: "released" in client.story(one))  # type: ignore[misc]

        assert second.story("q") == ["execution_start", "executed", "execution_success", "released"]
        assert second.story("p")[-2:] == ["execution_success", "released"]
        await until(lambda: comfy.registered == {})
