"""From one server to another and back: how long it takes, and which sockets are kept for whom."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.prompts.prompts import Outcome
from tests.site.relay_stand import (
    ALICE,
    KEYS,
    QUICK,
    Client,
    Rescue,
    ScriptedComfy,
    Stand,
    duty,
    pod,
    relay_before,
    until,
)

SWITCHING_GAP_S = 0.1
"""What a client may see of a move: so much later than it left the server may an event arrive."""
BEAT_S = 0.002
OUTPUT = {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}


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


async def end(comfy: ScriptedComfy, prompt_id: str = "p") -> None:
    await comfy.say("execution_success", prompt_id=prompt_id)
    await comfy.say("executing", node=None, prompt_id=prompt_id)


# -- the switching gap


@dataclass
class Beats:
    """Numbered events of a server, said every few milliseconds to a client of the relay and to one of its own."""

    comfy: ScriptedComfy
    kind: str
    directly: dict[int, float] = field(default_factory=dict)
    """When each arrived without the relay: what the machine itself takes is no fault of ours."""
    by_relay: list[tuple[int, float]] = field(default_factory=list)

    async def say(self) -> None:
        number = 0
        while True:
            for sid, socket in tuple(self.comfy.registered.items()):
                if sid == "direct" or len(self.comfy.registered) > 1:
                    await socket.send_json({"type": self.kind, "data": {"number": number}})
            number += len(self.comfy.registered) > 1
            await asyncio.sleep(BEAT_S)

    @property
    def worst_s(self) -> float:
        """How much later than directly the slowest came."""
        return max(at_s - self.directly[number] for number, at_s in self.by_relay)


async def note_arrivals(client: Client, beats: list[Beats], *, is_direct: bool) -> None:
    now_s = asyncio.get_running_loop().time
    while (said := await client.hear()) is not None:
        assert isinstance(said, dict)
        for beat in beats:
            if said["type"] == beat.kind:
                number = said["data"]["number"]
                if is_direct:
                    beat.directly[number] = now_s()
                else:
                    beat.by_relay.append((number, now_s()))


async def test_no_event_is_lost_or_late_by_more_than_the_gap_while_users_move_to_a_pod_and_back(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    beats = [Beats(home, "home"), Beats(private, "private")]
    opened_s: list[float] = []
    now_s = asyncio.get_running_loop().time
    client = await stand.connect()
    stand.accept("on duty", duty(home.url))
    home.queue, private.queue = ["on duty"], ["on the pod"]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(note_arrivals(client, beats, is_direct=False))]
        for comfy in (home, private):
            direct = Client(await stand.http.ws_connect(f"{comfy.url}/ws?clientId=direct"))
            stand.clients.append(direct)
            tasks.append(group.create_task(note_arrivals(direct, beats, is_direct=True)))
        tasks += [group.create_task(beat.say()) for beat in beats]

        for _ in range(3):
            private.answers.clear()
            asyncio.get_running_loop().call_later(0.1, private.answers.set)  # a handshake takes its time
            stand.routes.set_private(ALICE, pod(private.url))
            await private.answers.wait()
            began_s = now_s()
            assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
            opened_s.append(now_s() - began_s)
            stand.accept("on the pod", pod(private.url))
            await asyncio.sleep(0.05)

            stand.routes.retire_private(ALICE)
            assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
            await asyncio.sleep(0.05)
            stand.ledger.end("on the pod", Outcome.DONE)
            stand.routes.clear_private(ALICE)
            await until(lambda: list(private.registered) == ["direct"])
        for task in tasks:
            task.cancel()

    assert home.opened == 2, "the socket to duty, with a prompt there, was kept through it all"
    assert private.opened == 4
    (on_duty, on_pod) = ([number for number, _ in beat.by_relay] for beat in beats)
    assert on_duty == list(range(on_duty[0], on_duty[0] + len(on_duty)))
    assert len(on_duty) > 100
    assert on_pod == sorted(set(on_pod))
    assert len(on_pod) > 30
    assert max(beat.worst_s for beat in beats) < SWITCHING_GAP_S
    assert max(opened_s) < SWITCHING_GAP_S


# -- which sockets are kept


async def test_a_prompt_may_go_to_another_server_than_the_current_one(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    client = await stand.connect()
    assert home.requests == []

    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5, backend=duty(home.url))
    await asyncio.sleep(2 * QUICK.farewell_s)
    assert home.registered, "the prompt is on its way"
    stand.accept("p", duty(home.url))
    await home.say("execution_start", prompt_id="p")
    await end(home)
    await client.hear_until(lambda client: "released" in client.story("p"))

    assert client.story("p") == ["execution_start", "execution_success", "released"]
    await until(lambda: home.registered == {})
    assert private.registered


async def test_a_server_that_a_prompt_never_reached_is_left_after_a_while(
    home: ScriptedComfy, private: ScriptedComfy
) -> None:
    async with relay_before(home.url, replace(QUICK, expect_s=0.3)) as stand:
        stand.routes.set_private(ALICE, pod(private.url))
        await stand.connect()

        for _ in range(2):
            assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5, backend=duty(home.url))
            await asyncio.sleep(0.1)

        await until(lambda: home.registered == {})
        assert home.opened == 1


async def test_a_server_that_cannot_be_reached_is_not_waited_for(
    private: ScriptedComfy, home: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    await stand.connect()
    home.refuses_with = 502

    async with asyncio.timeout(2):
        assert not await stand.relay.is_listening(ALICE, "tab", timeout_s=5, backend=duty(home.url))


async def test_a_move_while_a_prompt_is_on_its_way_does_not_close_the_socket_that_it_needs(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)

    stand.routes.set_private(ALICE, pod(private.url))
    await until(lambda: private.registered)
    await asyncio.sleep(3 * QUICK.farewell_s)
    await home.say("execution_start", prompt_id="p")  # before the answer to the POST
    await client.hear_kind("execution_start")
    stand.accept("p", duty(home.url))
    await end(home)

    await client.hear_until(lambda client: "released" in client.story("p"))
    assert client.story("p") == ["execution_start", "execution_success", "released"]
    assert home.opened == 1


async def test_events_of_a_pod_that_overtake_the_answer_of_their_prompt_are_told_once(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    stand.accept("on duty", duty(home.url))
    stand.routes.set_private(ALICE, pod(private.url))
    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)

    await private.say("execution_start", prompt_id="p")
    await end(private)
    await client.hear_until(lambda client: "released" in client.story("p"))
    stand.accept("p", pod(private.url))
    await asyncio.sleep(2 * QUICK.ending_grace_s)
    await home.say("hello")
    await client.hear_kind("hello")

    assert client.story("p") == ["execution_start", "execution_success", "released"]
    assert stand.outcome("p") is Outcome.DONE


async def test_a_pod_that_drains_is_heard_to_the_end_while_new_prompts_run_on_duty(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    stand.routes.set_private(ALICE, pod(private.url))
    client = await stand.connect()
    stand.accept("on the pod", pod(private.url))

    stand.routes.retire_private(ALICE)
    assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
    stand.accept("on duty", duty(home.url))
    await private.say("execution_start", prompt_id="on the pod")
    await home.say("execution_start", prompt_id="on duty")
    await end(home, "on duty")
    await client.hear_until(lambda client: "released" in client.story("on duty"))
    assert private.registered
    await end(private, "on the pod")
    await client.hear_until(lambda client: "released" in client.story("on the pod"))

    assert client.story("on duty") == client.story("on the pod")
    await until(lambda: private.registered == {})
    assert home.registered


async def test_each_tab_keeps_duty_only_for_its_own_prompts(
    home: ScriptedComfy, private: ScriptedComfy, stand: Stand
) -> None:
    await stand.connect(sid="busy")
    await stand.connect(sid="idle")
    stand.accept("p", duty(home.url), sid="busy")

    stand.routes.set_private(ALICE, pod(private.url))

    await until(lambda: list(home.registered) == [upstream_sid(KEYS, ALICE, "busy")])
    assert len(private.registered) == 2


# -- a pool of shared servers


async def test_a_user_of_a_pool_whose_server_died_goes_on_on_the_next_and_is_told_of_what_was_there(
    home: ScriptedComfy, private: ScriptedComfy
) -> None:
    rescue, first, second = Rescue(), home, private
    async with relay_before(home.url, others=[duty(private.url, 1)], rescuer=rescue) as stand:
        client = await stand.connect()
        stand.accept("p", duty(first.url))
        first.queue = ["p"]
        await first.say("execution_start", prompt_id="p")
        await client.hear_kind("execution_start")

        first.refuses_with = 502
        first.drop()
        stand.duty = duty(second.url, 1)
        stand.routes.duty_changed(ALICE)
        assert await stand.relay.is_listening(ALICE, "tab", timeout_s=5)
        stand.accept("q", duty(second.url, 1))
        await second.say("executed", node="9", output=OUTPUT, prompt_id="q")
        await client.hear_kind("executed")
        assert client.of("executed")[0]["output"]["images"][0]["subfolder"] == "server-1"

        first.queue, first.refuses_with = [], None  # it is back, and has forgotten
        await until(lambda: rescue.asked == [("p", "duty-0")])
        stand.accept("p", duty(second.url, 1), replays=1)
        await second.say("execution_start", prompt_id="p")
        await end(second)
        await client.hear_until(lambda client: "released" in client.story("p"))

        assert client.story("p") == ["execution_start"] * 2 + ["execution_success", "released"]
        await until(lambda: first.registered == {})


async def test_a_socket_without_a_name_stays_on_the_server_of_a_pool_that_it_has(
    home: ScriptedComfy, private: ScriptedComfy
) -> None:
    async with relay_before(home.url, others=[duty(private.url, 1)]) as stand:
        client = await stand.connect(None)
        await client.hear_kind("status")

        stand.duty = duty(private.url, 1)  # the shorter queue at this moment
        assert await stand.relay.is_listening(None, "tab", timeout_s=5)
        await home.say("hello")
        await client.hear_kind("hello")
        assert private.requests == []

        home.refuses_with = 502
        home.drop()
        await until(lambda: private.registered)
        await private.say("hello")
        await client.hear_kind("hello", 2)
