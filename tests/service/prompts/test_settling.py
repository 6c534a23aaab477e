"""Endings that no socket told."""

import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, World


async def accept(
    world: World, prompt_id: str, user: UserId | None = ALICE, backend_id: str = "duty-0"
) -> None:
    world.ledger.accept(PromptRecord(prompt_id, None if user is None else user.key, "sid", backend_id))


def outcome(world: World, prompt_id: str) -> Outcome:
    found = world.ledger.find(prompt_id)
    assert found is not None
    return found.outcome


@pytest.mark.parametrize("ending", [Outcome.DONE, Outcome.ERROR, Outcome.INTERRUPTED])
async def test_an_ending_in_the_history_is_taken_over(world: World, ending: Outcome) -> None:
    await accept(world, "p1")
    world.comfy.endings["p1"] = ending
    await world.settling.settle()
    await world.settling.settle()
    assert outcome(world, "p1") is ending


async def test_a_prompt_is_asked_for_only_when_it_was_open_a_round_before(world: World) -> None:
    await accept(world, "p1")
    await world.settling.settle()
    assert outcome(world, "p1") is Outcome.ACCEPTED
    assert world.comfy.asked == []


async def test_a_queued_prompt_stays_open(world: World) -> None:
    await accept(world, "p1")
    world.comfy.queued["duty-0"] = {"p1"}
    for _ in range(5):
        await world.settling.settle()
    assert outcome(world, "p1") is Outcome.ACCEPTED


async def test_a_prompt_that_was_taken_out_of_the_queue_is_interrupted(world: World) -> None:
    await accept(world, "p1")
    await world.settling.settle()
    await world.settling.settle()
    assert outcome(world, "p1") is Outcome.INTERRUPTED


async def test_a_server_that_does_not_answer_says_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await accept(world, "p1")
    world.comfy.down.add("duty-0")
    for _ in range(5):
        await world.settling.settle()
    assert outcome(world, "p1") is Outcome.ACCEPTED
    assert "prompts on duty-0 stay open: 502 Bad Gateway" in caplog.text


async def test_one_question_a_round_to_each_server(world: World) -> None:
    for number in range(10):
        await accept(world, f"p{number}")
    world.comfy.queued["duty-0"] = {f"p{number}" for number in range(10)}
    await world.settling.settle()
    await world.settling.settle()
    assert world.comfy.asked == ["duty-0"]


async def test_prompts_on_a_pod_that_is_gone_are_lost(world: World) -> None:
    pod = await world.ready()
    [prompt] = world.prompts(ALICE, is_done=False)
    world.signals.send(ALICE, Event.VANISHED, "gone")
    await world.until(State.SHARED)
    await world.settling.settle()
    await world.settling.settle()
    assert outcome(world, prompt) is Outcome.LOST
    assert world.ledger.unfinished(backend_id=pod.name) == []


async def test_prompts_of_nobody_in_particular_are_settled_on_their_own_server(clock: FakeClock) -> None:
    world = World(clock, duties=3)
    await accept(world, "p1", user=None, backend_id="duty-2")
    world.comfy.endings["p1"] = Outcome.DONE
    await world.settling.settle()
    await world.settling.settle()
    assert world.comfy.asked == ["duty-2"]
    assert outcome(world, "p1") is Outcome.DONE


async def test_a_server_that_never_answers_holds_no_other_up(clock: FakeClock) -> None:
    world = World(clock, duties=2)
    await accept(world, "p1", backend_id="duty-0")
    await accept(world, "p2", backend_id="duty-1")
    world.comfy.mute.add("duty-0")
    world.comfy.endings["p2"] = Outcome.DONE
    await world.settling.settle()
    world.tasks.start(world.settling.settle(), name="settling")
    await clock.settle()
    assert outcome(world, "p2") is Outcome.DONE
    assert outcome(world, "p1") is Outcome.ACCEPTED
    await world.stop()


async def test_a_prompt_whose_user_went_to_another_server_is_settled_where_it_is(clock: FakeClock) -> None:
    world = World(clock, duties=2)
    assert world.pool.choose(ALICE).id == "duty-0"
    await accept(world, "p1", backend_id="duty-1")
    world.comfy.queued["duty-1"] = {"p1"}
    for _ in range(3):
        await world.settling.settle()
    assert outcome(world, "p1") is Outcome.ACCEPTED


async def test_settling_goes_on_after_a_round_that_failed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def break_once(_record: PromptRecord) -> None:
        stop()
        raise KeyError("a bug of a watcher")

    await accept(world, "p1")
    await accept(world, "p2")
    stop = world.ledger.watch(break_once)
    world.tasks.start(world.settling.run(), name="settling")
    await world.clock.advance(61)
    assert "a bug of a watcher" in caplog.text
    assert world.ledger.unfinished() == []


async def test_prompts_of_a_pod_whose_comfyui_stays_mute_are_lost_in_the_end(world: World) -> None:
    pod = await world.ready()
    await accept(world, "p1", backend_id=pod.name)
    await accept(world, "p2")
    world.comfy.down |= {pod.name, "duty-0"}
    for _ in range(2):
        await world.settling.settle()
    await world.clock.advance(899)
    await world.settling.settle()
    assert outcome(world, "p1") is Outcome.ACCEPTED
    await world.clock.advance(1)
    await world.settling.settle()
    assert outcome(world, "p1") is Outcome.LOST
    assert outcome(world, "p2") is Outcome.ACCEPTED


async def test_prompts_of_a_dead_server_of_a_pool_are_taken_over_by_another_in_the_end(
    clock: FakeClock,
) -> None:
    world = World(clock, duties=2)
    body = b'{"prompt_id": "p1", "prompt": {"1": {"class_type": "SaveImage", "inputs": {}}}}'
    record = PromptRecord("p1", ALICE.key, "sid", "duty-0", accepted_at=world.clock.now())
    world.ledger.reserve(record)
    await world.ledger.write_down(record, body, stored_body=body)
    world.ledger.confirm("p1")
    world.comfy.down.add("duty-0")

    async def silent_for(seconds: float) -> None:
        await world.settling.settle()
        await world.settling.settle()
        await world.clock.advance(seconds)
        await world.settling.settle()
        await world.clock.settle()

    await silent_for(1000)
    assert world.comfy.posted == [], "the pool's own probes still find it alive"
    world.servers.mood("duty0.test").is_healthy = False
    await world.pool.probe_all()
    await world.pool.probe_all()
    await silent_for(0)
    assert [backend_id for backend_id, _ in world.comfy.posted] == ["duty-1"]
    await world.stop()


async def test_a_dead_server_whose_pool_is_dead_too_is_waited_for(clock: FakeClock) -> None:
    world = World(clock, duties=2)
    await accept(world, "p1")
    world.comfy.down |= {"duty-0", "duty-1"}
    for name in ("duty0.test", "duty1.test"):
        world.servers.mood(name).is_healthy = False
    for _ in range(2):
        await world.pool.probe_all()
        await world.settling.settle()
    await world.clock.advance(5000)
    await world.settling.settle()
    assert outcome(world, "p1") is Outcome.ACCEPTED
    await world.stop()


async def test_an_answer_in_between_begins_the_silence_anew(world: World) -> None:
    pod = await world.ready()
    await accept(world, "p1", backend_id=pod.name)
    world.comfy.queued[pod.name] = {"p1"}
    for is_down, waits_s in ((True, 500), (True, 0), (False, 0), (True, 500), (True, 0)):
        world.comfy.down = {pod.name} if is_down else set()
        await world.settling.settle()
        await world.clock.advance(waits_s)
    assert outcome(world, "p1") is Outcome.ACCEPTED


async def test_prompts_of_a_pod_that_vanished_are_lost_at_once(world: World) -> None:
    pod = await world.ready()
    await accept(world, "p1", backend_id=pod.name)
    await accept(world, "p2")
    world.sessions.apply(ALICE, Event.VANISHED, "test")
    assert outcome(world, "p1") is Outcome.LOST
    assert outcome(world, "p2") is Outcome.ACCEPTED
