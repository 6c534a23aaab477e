"""Prompts that their server has lost."""

import asyncio
from dataclasses import dataclass, field

import orjson
import pytest

from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.inputs.refusals import INPUTS_UNKNOWN
from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import PromptAnswer
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.prompts.rescue import TRY_FOR_S
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import FakeLedgerStore
from tests.service.world import ALICE, BOB, KEYS, World

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {}}}


async def sent(world: World, prompt_id: str, user: UserId = ALICE, backend_id: str = "duty-0") -> None:
    """A prompt of a user that this server has accepted."""
    record = PromptRecord(prompt_id, user.key, "tab", backend_id, accepted_at=world.clock.now())
    body = orjson.dumps(
        {
            "prompt": GRAPH,
            "prompt_id": prompt_id,
            "extra_data": {"api_key_comfy_org": "s", "extra_pnginfo": {"w": 1}},
        }
    )
    world.ledger.reserve(record)
    await world.ledger.write_down(record, body, stored_body=body)
    world.ledger.confirm(prompt_id)


def record(world: World, prompt_id: str) -> PromptRecord:
    found = world.ledger.find(prompt_id)
    assert found is not None
    return found


async def test_what_a_dead_pod_had_runs_again_on_duty_under_its_id_and_its_owners_name(world: World) -> None:
    pod = await world.ready()
    await sent(world, "p1", backend_id=pod.name)
    await sent(world, "p2", user=BOB)
    world.sessions.apply(ALICE, Event.VANISHED, "test")
    await world.clock.advance(1)
    [(backend_id, body)] = world.comfy.posted
    document = orjson.loads(body)
    assert backend_id == "duty-0"
    assert document["prompt_id"] == "p1"
    assert document["client_id"] == upstream_sid(KEYS, ALICE, "tab")
    assert document["carried_to"] == "duty-0", "its inputs come with it"
    moved = record(world, "p1")
    assert (moved.backend_id, moved.outcome, moved.replays) == ("duty-0", Outcome.ACCEPTED, 1)
    assert record(world, "p2").replays == 0


@dataclass
class SlowRelay:
    """A relay whose socket is a while in opening."""

    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[UserId | None, str, str | None]] = field(default_factory=list)

    async def is_listening(
        self, user: UserId | None, sid: str, *, timeout_s: float, backend: Backend | None = None
    ) -> bool:
        self.asked.append((user, sid, backend.id if backend else None))
        await self.is_open.wait()
        return True


async def test_a_replay_waits_for_the_socket_that_hears_its_first_events(world: World) -> None:
    pod = await world.ready()
    relay = SlowRelay()
    world.rescue.wait_for(relay)
    await sent(world, "p1", backend_id=pod.name)
    world.sessions.apply(ALICE, Event.VANISHED, "test")
    await world.clock.advance(1)
    assert relay.asked == [(ALICE, "tab", "duty-0")]
    assert record(world, "p1").backend_id == "duty-0", "so that the relay opens one"
    assert world.comfy.posted == []
    relay.is_open.set()
    await world.clock.advance(1)
    assert len(world.comfy.posted) == 1


async def test_what_a_pod_still_has_when_it_is_given_up_runs_again(world: World) -> None:
    pod = await world.ready()
    await sent(world, "p1", backend_id=pod.name)
    world.sessions.apply(ALICE, Event.STOPPED, "an operator")
    await world.clock.advance(1)
    assert not world.comfy.posted, "a draining pod may finish it"
    world.sessions.apply(ALICE, Event.DRAINED, "too late")
    await world.clock.advance(1)
    assert [backend_id for backend_id, _ in world.comfy.posted] == ["duty-0"]


async def test_a_duty_server_that_restarted_gets_its_prompts_again(world: World) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert [backend_id for backend_id, _ in world.comfy.posted] == ["duty-0"]


async def test_a_prompt_that_somebody_took_out_of_a_living_queue_is_interrupted(world: World) -> None:
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert record(world, "p1").outcome is Outcome.INTERRUPTED
    assert not world.comfy.posted


async def test_a_pod_that_forgot_a_prompt_has_restarted_for_nobody_else_can_reach_it(world: World) -> None:
    pod = await world.ready()
    await sent(world, "p1", backend_id=pod.name)
    world.rescue.forgotten("p1", pod.name)
    await world.clock.advance(1)
    assert [backend_id for backend_id, _ in world.comfy.posted] == [pod.name]


@pytest.mark.parametrize("backend_id", ["duty-1", "nobody"])
async def test_word_of_a_server_that_does_not_have_the_prompt_means_nothing(
    world: World, backend_id: str
) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", backend_id)
    world.rescue.forgotten("unknown", "duty-0")
    await world.clock.advance(1)
    assert record(world, "p1").outcome is Outcome.ACCEPTED
    assert not world.comfy.posted


async def test_a_prompt_that_brings_its_server_down_twice_is_lost(world: World) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    for _ in range(2):
        world.rescue.forgotten("p1", "duty-0")
        await world.clock.advance(1)
        world.comfy.queued.clear()
    assert len(world.comfy.posted) == 1
    assert record(world, "p1").outcome is Outcome.LOST
    entry = await world.ledger.entry("p1")
    assert entry is not None
    assert entry["status"]["messages"][0][0] == "execution_error"
    assert entry["prompt"][2] == GRAPH
    assert entry["prompt"][3] == {"extra_pnginfo": {"w": 1}}, "keys are left out"


async def test_word_from_before_the_replay_arrived_does_not_lose_what_runs(world: World) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    world.rescue.forgotten("p1", "duty-0")  # by somebody who asked a moment earlier
    await world.clock.advance(1)
    assert record(world, "p1").outcome is Outcome.ACCEPTED
    assert len(world.comfy.posted) == 1


async def test_a_replay_that_the_end_of_the_gateway_broke_off_is_made_after_the_restart(world: World) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    world.ledger.move("p1", "duty-0")  # as far as the gateway before this one came
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert len(world.comfy.posted) == 1
    assert record(world, "p1").outcome is Outcome.ACCEPTED


async def test_a_replay_that_had_begun_before_the_gateway_restarted_is_not_made_again(world: World) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    world.ledger.move("p1", "duty-0")
    world.ledger.begin("p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert not world.comfy.posted
    assert record(world, "p1").outcome is Outcome.LOST


async def test_replays_that_are_always_broken_off_come_to_an_end(world: World) -> None:
    world.witness.restarted.add("duty-0")
    await sent(world, "p1")
    for _ in range(5):
        world.ledger.move("p1", "duty-0")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert not world.comfy.posted
    assert record(world, "p1").outcome is Outcome.LOST


async def test_a_server_that_is_down_is_waited_for(world: World) -> None:
    world.witness.restarted.add("duty-0")
    world.comfy.down.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(300)
    assert not world.comfy.posted
    world.comfy.down.clear()
    await world.clock.advance(20)
    assert len(world.comfy.posted) == 1
    assert record(world, "p1").replays == 1


async def test_a_server_that_stays_down_loses_the_prompt_in_the_end(world: World) -> None:
    world.witness.restarted.add("duty-0")
    world.comfy.down.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(950)
    assert record(world, "p1").outcome is Outcome.LOST


async def test_a_try_whose_answer_was_lost_is_not_made_twice(world: World) -> None:
    world.witness.restarted.add("duty-0")
    world.comfy.down.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(5)
    world.comfy.queued["duty-0"] = {"p1"}
    world.comfy.down.clear()
    await world.clock.advance(20)
    assert not world.comfy.posted
    assert record(world, "p1").outcome is Outcome.ACCEPTED


async def test_a_prompt_that_duty_refuses_is_lost_with_an_entry_in_the_history(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await world.ready()
    await sent(world, "p1", backend_id=pod.name)
    world.comfy.refusal = PromptAnswer(400, {"error": {"message": "Prompt has no outputs"}})
    world.rescue.backend_died(ALICE, pod.name)
    await world.clock.advance(1)
    assert record(world, "p1").outcome is Outcome.LOST
    assert "Prompt has no outputs" in caplog.text
    assert await world.ledger.entry("p1") is not None


async def test_a_prompt_whose_inputs_cannot_come_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await world.ready()
    await sent(world, "p1", backend_id=pod.name)
    world.inputs.refusal = Refusal(502, "input_lost", "The input photo.png is gone.")
    world.rescue.backend_died(ALICE, pod.name)
    await world.clock.advance(1)
    assert record(world, "p1").outcome is Outcome.LOST
    assert "photo.png" in caplog.text


async def test_a_replay_waits_for_a_server_that_does_not_tell_yet_which_inputs_are_files(
    world: World,
) -> None:
    pod = await world.ready()
    await sent(world, "p1", backend_id=pod.name)
    world.inputs.refusal = INPUTS_UNKNOWN
    world.rescue.backend_died(ALICE, pod.name)
    await world.clock.advance(5)
    assert record(world, "p1").outcome is Outcome.ACCEPTED
    world.inputs.refusal = None
    await world.clock.advance(30)
    assert len(world.comfy.posted) == 1


def stored_by_an_earlier_gateway(world: World, prompt_id: str) -> FakeLedgerStore:
    """Memory knows a prompt whose body is in the database alone."""
    world.ledger.accept(PromptRecord(prompt_id, ALICE.key, "tab", "duty-0", accepted_at=world.clock.now()))
    store = world.ledger._journal._store
    assert isinstance(store, FakeLedgerStore)
    store.bodies[prompt_id] = orjson.dumps({"prompt": GRAPH, "prompt_id": prompt_id})
    return store


async def test_a_replay_waits_for_a_database_that_does_not_answer(world: World) -> None:
    world.witness.restarted.add("duty-0")
    store = stored_by_an_earlier_gateway(world, "p1")
    store.is_down = True
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(60)
    assert record(world, "p1").outcome is Outcome.ACCEPTED
    assert not world.comfy.posted
    store.is_down = False
    await world.clock.advance(20)
    assert [backend_id for backend_id, _ in world.comfy.posted] == ["duty-0"]


async def test_a_database_that_stays_away_loses_the_prompt_at_last(world: World) -> None:
    world.witness.restarted.add("duty-0")
    stored_by_an_earlier_gateway(world, "p1").is_down = True
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(TRY_FOR_S + 20)
    assert record(world, "p1").outcome is Outcome.LOST


async def test_a_prompt_without_a_body_is_lost(world: World) -> None:
    world.witness.restarted.add("duty-0")
    world.ledger.accept(PromptRecord("p1", ALICE.key, "tab", "duty-0"))
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert record(world, "p1").outcome is Outcome.LOST


async def test_a_prompt_that_its_user_deletes_while_it_waits_is_not_submitted(world: World) -> None:
    world.witness.restarted.add("duty-0")
    world.comfy.down.add("duty-0")
    await sent(world, "p1")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(5)
    world.ledger.end("p1", Outcome.INTERRUPTED)
    world.comfy.down.clear()
    await world.clock.advance(60)
    assert not world.comfy.posted
    assert record(world, "p1").outcome is Outcome.INTERRUPTED


async def test_prompts_of_a_pod_that_is_looked_at_after_a_restart_wait_for_the_verdict(world: World) -> None:
    pod = await world.ready()
    world.servers.mood(pod.id).is_healthy = False
    await world.restart()
    assert world.state() is State.CHECKING
    await sent(world, "p1", backend_id=pod.name)
    for _ in range(4):
        await world.settling.settle()
    await world.clock.advance(60)
    assert record(world, "p1").replays == 0
    await world.clock.advance(400)
    assert record(world, "p1").backend_id == "duty-0"


async def test_a_user_of_a_pool_is_replayed_on_the_server_that_is_theirs_now(clock: FakeClock) -> None:
    world = World(clock, duties=2)
    world.pool.choose(ALICE)
    await sent(world, "p1", backend_id="duty-0")
    world.servers.mood("duty0.test").is_healthy = False
    for _ in range(2):
        await world.pool.probe_all()
    world.witness.restarted.add("duty-0")
    world.rescue.forgotten("p1", "duty-0")
    await world.clock.advance(1)
    assert [backend_id for backend_id, _ in world.comfy.posted] == ["duty-1"]


async def test_what_a_dead_pod_had_comes_to_duty_in_its_users_order(world: World) -> None:
    pod = await world.ready()
    ids = [f"p{place}" for place in range(6)]
    for prompt_id in ids:
        await sent(world, prompt_id, backend_id=pod.name)
    world.sessions.apply(ALICE, Event.VANISHED, "test")
    await world.clock.advance(1)
    numbers = {
        body["prompt_id"]: body["number"]
        for _, raw in world.comfy.posted
        if "number" in (body := orjson.loads(raw))
    }
    assert sorted(numbers, key=lambda prompt_id: numbers[prompt_id]) == [one for one in ids if one in numbers]
    assert len(numbers) >= 5, "one alone may be left to the server's counter"
