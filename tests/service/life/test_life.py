"""A session from burst to end, on the fake clock."""

import asyncio
import logging

import pytest

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.prompts.prompts import Outcome
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.service.life.life import MOST_STEP_FAILURES
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create
from tests.service.world import ALICE, BOB, KEYS, World, with_rules

STATES_WITH_A_POD = [
    State.CREATING,
    State.BOOTING,
    State.VERIFYING,
    State.READY,
    State.DRAINING,
    State.TERMINATING,
    State.ABANDONING,
]


async def reach(world: World, state: State) -> None:
    """Bring Alice's session into the state."""
    world.servers.usual.boot_s = 10_000 if state is State.ABANDONING else 40
    world.servers.usual.agent_s = 10
    world.burst()
    if state is State.DRAINING:
        await world.until(State.READY)
        world.prompts(ALICE, is_done=False)
        world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    if state is State.TERMINATING:
        world.cloud.swallowed_terminations = 3
    await world.until(state, step_s=0.25)


async def test_a_burst_leads_to_a_ready_pod_through_the_gates_in_order(world: World) -> None:
    world.servers.usual.boot_s, world.servers.usual.agent_s = 40, 3
    world.burst()
    await world.clock.settle()
    assert world.state() is State.BOOTING
    assert world.routes.private(ALICE) is None

    await world.until(State.VERIFYING)
    assert world.routes.private(ALICE) is None

    await world.until(State.READY)
    assert world.events() == [
        Event.BURST,
        Event.ORDERED,
        Event.CREATED,
        Event.HEALTHY,
        Event.AGENT_ANSWERED,
    ]
    route = world.routes.private(ALICE)
    assert route is not None
    assert route.source is Source.PRIVATE
    assert route.upstream.host == f"{world.pod().id}-8188.pods.test"
    assert route.token == KEYS.pod_token(world.pod().name)
    assert world.servers.tokens[world.pod().id] == KEYS.pod_token(world.pod().name)
    assert world.clock.monotonic() <= 46


async def test_the_route_switches_with_the_last_gate_and_not_later(world: World) -> None:
    world.servers.usual.agent_s = 2.5
    world.burst()
    await world.until(State.VERIFYING)
    took_s = await world.until(State.READY, step_s=0.1)
    assert took_s <= 2.5 + 1.0
    assert world.routes.private(ALICE) is not None


async def test_every_transition_has_exactly_one_line_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.ready()
    await world.until(State.SHARED)
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == "comfy_gateway.service.life.sessions"
    ]
    assert [line.split(", pod")[0] for line in told] == [
        f"RunPod session named:alice: {before} -> {after}" for _, before, _, after in world.transitions
    ]
    assert len(told) == 8


async def test_a_boot_past_its_deadline_is_ended_and_cools_down(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    world.burst()
    took_s = await world.until(State.ABANDONING)
    assert 360 <= took_s <= 366
    await world.until(State.COOLING)
    assert not world.cloud.living()
    assert world.routes.private(ALICE) is None
    assert await world.until(State.SHARED) == pytest.approx(30, abs=1)


async def test_each_further_failed_boot_doubles_the_wait(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    waits: list[float] = []
    for _ in range(6):
        world.burst()
        await world.until(State.COOLING)
        waits.append(await world.until(State.SHARED))
    assert waits == pytest.approx([30, 60, 120, 240, 480, 600], abs=1)


async def test_a_pod_that_became_ready_forgives_the_failures_before_it(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.SHARED)
    world.servers.usual.boot_s = 40
    await world.ready()
    await world.until(State.SHARED)
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.COOLING)
    assert await world.until(State.SHARED) == pytest.approx(30, abs=1)


async def test_a_pod_without_an_agent_is_used_after_a_bounded_wait_with_a_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.servers.usual.has_agent = False
    world.burst()
    await world.until(State.VERIFYING)
    assert await world.until(State.READY) == pytest.approx(30, abs=2)
    assert world.events()[-1] is Event.AGENT_ABSENT
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].getMessage().startswith("RunPod session named:alice: no agent in pod")


async def test_an_idle_pod_loses_its_route_first_and_ends_second(world: World) -> None:
    await world.ready()
    took_s = await world.clock.advance_until(lambda: world.routes.private(ALICE) is None, within_s=1200)
    assert 600 <= took_s <= 661
    await world.until(State.SHARED)
    assert not world.cloud.living()
    assert world.events()[-3:] == [Event.IDLE, Event.DRAINED, Event.ENDED]
    assert world.cloud.terminations == [world.cloud.pods[0].name]


async def test_a_pod_without_an_agent_ends_after_the_bound_on_silence(world: World) -> None:
    world.servers.usual.has_agent = False
    await world.ready()
    took_s = await world.until(State.SHARED)
    assert 900 <= took_s <= 962


async def test_a_pod_is_not_idle_while_a_prompt_is_in_flight(world: World) -> None:
    await world.ready()
    [prompt] = world.prompts(ALICE, is_done=False)
    await world.clock.advance(3000)
    assert world.state() is State.READY

    world.ledger.end(prompt, Outcome.DONE)
    assert 600 <= await world.until(State.SHARED) <= 662


async def test_a_pod_is_not_idle_while_a_transfer_runs(world: World) -> None:
    world.servers.usual.has_agent = False
    pod = await world.ready()
    world.activity.begin(pod.name)
    await world.clock.advance(3000)
    assert world.state() is State.READY
    world.activity.end(pod.name)
    assert 900 <= await world.until(State.SHARED) <= 962


async def test_a_pod_with_a_queue_of_its_own_is_not_idle(world: World) -> None:
    pod = await world.ready()
    world.servers.mood(pod.id).queue = 1
    await world.clock.advance(3000)
    assert world.state() is State.READY


async def test_a_silent_pod_whose_comfyui_is_busy_is_not_ended(world: World) -> None:
    world.servers.usual.has_agent = False
    pod = await world.ready()
    world.servers.mood(pod.id).queue = 2
    await world.clock.advance(3000)
    assert world.state() is State.READY


async def test_a_prompt_that_comes_during_the_last_look_keeps_the_pod(world: World) -> None:
    pod = await world.ready()
    world.servers.probe_s = 5
    await world.clock.advance_until(lambda: world.servers.asked == pod.id, within_s=700)
    world.prompts(ALICE)
    await world.clock.advance(300)
    assert world.state() is State.READY


async def test_a_pod_drains_until_its_prompts_have_ended(world: World) -> None:
    pod = await world.ready()
    [prompt] = world.prompts(ALICE, is_done=False)
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.clock.advance(30)
    assert world.state() is State.DRAINING
    assert world.routes.private(ALICE) is None
    assert pod.ended_s is None
    world.ledger.end(prompt, Outcome.DONE)
    await world.until(State.SHARED)
    assert pod.ended_s is not None


async def test_settling_leaves_the_prompts_of_a_draining_pod_open(world: World) -> None:
    world.run_loops()
    pod = await world.ready()
    [prompt] = world.prompts(ALICE, is_done=False)
    world.comfy.queued[pod.name] = {prompt}
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.clock.advance(90)
    assert world.state() is State.DRAINING
    record = world.ledger.find(prompt)
    assert record is not None
    assert record.outcome is Outcome.ACCEPTED


async def test_a_drain_has_an_end(world: World) -> None:
    await world.ready()
    world.prompts(ALICE, is_done=False)
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.DRAINING)
    took_s = await world.until(State.SHARED)
    assert 120 <= took_s <= 125
    assert not world.cloud.living()


async def test_a_transfer_holds_the_drain_as_a_prompt_does(world: World) -> None:
    pod = await world.ready()
    world.activity.begin(pod.name)
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.clock.advance(60)
    assert world.state() is State.DRAINING
    world.activity.end(pod.name)
    await world.until(State.SHARED, within_s=10)


async def test_capacity_at_the_first_candidate_leads_to_the_second(world: World) -> None:
    world.cloud.creates.append(Create.CAPACITY)
    await world.ready()
    assert [order.candidate.gpu_type for order in world.cloud.orders] == ["RTX 4090", "A100"]
    assert len({order.name for order in world.cloud.orders}) == 1
    assert world.pod().gpu_type == "A100"


async def test_an_unknown_create_that_made_a_pod_is_found_by_its_name(world: World) -> None:
    world.cloud.creates.append(Create.LOST)
    world.cloud.list_lag_s = 5
    pod = await world.ready()
    assert world.cloud.pods == [pod]
    assert len(world.cloud.orders) == 1


async def test_an_unknown_create_that_made_nothing_is_refused_after_a_few_lists(world: World) -> None:
    world.cloud.creates.append(Create.NOTHING)
    world.burst()
    await world.until(State.COOLING)
    assert world.cloud.lists == 4
    assert len(world.cloud.orders) == 1
    assert not world.cloud.pods


async def test_a_pod_that_appears_after_its_order_was_given_up_is_ended(world: World) -> None:
    world.run_loops()
    world.cloud.creates.append(Create.LATE)
    world.cloud.late_s = 100
    world.burst()
    await world.until(State.COOLING)
    await world.clock.advance(200)
    assert len(world.cloud.pods) == 1
    assert not world.cloud.living()


async def test_a_vanished_pod_sends_its_user_back_to_duty(world: World) -> None:
    world.run_loops()
    pod = await world.ready()
    world.cloud.vanish(pod.id)
    took_s = await world.until(State.SHARED)
    assert took_s <= 50
    assert Event.VANISHED in world.events()
    assert world.routes.current(ALICE).source is Source.DUTY


async def test_a_pod_that_exited_while_it_booted_is_abandoned(world: World) -> None:
    world.run_loops()
    world.burst()
    await world.clock.advance(5)
    world.cloud.exit(world.pod().id, "Exited by Runpod: image cannot be pulled")
    await world.until(State.COOLING, within_s=30)
    assert not world.cloud.living()


async def test_a_termination_that_is_swallowed_five_times_is_repeated_with_an_alarm(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.ready()
    world.cloud.swallowed_terminations = 5
    await world.until(State.TERMINATING)
    await world.until(State.SHARED)
    assert not world.cloud.living()
    assert len(world.cloud.terminations) == 6
    alarms = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(alarms) == 1
    assert "does not end after 5 tries" in alarms[0]


async def test_nothing_is_bought_when_the_attempt_cannot_be_written_down(world: World) -> None:
    world.memory.is_down = True
    world.burst()
    await world.clock.advance(300)
    assert not world.cloud.orders
    assert world.state() is State.SHARED
    assert world.events() == [Event.BURST, Event.ORDERED, Event.REFUSED, Event.COOLED]

    world.memory.is_down = False
    await world.clock.advance(20)
    await world.ready()


async def test_a_save_whose_answer_was_lost_does_not_block_later_saves(world: World) -> None:
    world.memory.lost_answers = 1
    world.burst()
    await world.until(State.SHARED)
    assert not world.cloud.orders
    await world.clock.advance(20)
    await world.ready()
    await world.clock.advance(10)
    assert world.memory.rows[ALICE].state is State.READY


@pytest.mark.parametrize("state", [State.BOOTING, State.VERIFYING, State.READY, State.DRAINING])
async def test_an_outage_of_the_store_does_not_keep_a_pod_alive(world: World, state: State) -> None:
    await reach(world, state)
    world.memory.is_down = True
    await world.clock.advance(2000)
    assert not world.cloud.living()
    assert world.state() is State.TERMINATING

    world.memory.is_down = False
    await world.until(State.SHARED)
    await world.clock.advance(20)
    assert world.memory.rows[ALICE].state is State.SHARED
    assert [row.ended_at is not None for row in world.memory.pods.values()] == [True]


async def test_what_could_not_be_saved_is_saved_when_the_store_is_back(world: World) -> None:
    world.burst()
    await world.until(State.BOOTING)
    await world.clock.settle()
    world.memory.is_down = True
    await world.until(State.READY)
    assert world.memory.rows[ALICE].state is State.BOOTING
    world.memory.is_down = False
    await world.clock.advance(10)
    assert world.memory.rows[ALICE].state is State.READY


async def test_an_outage_while_a_boot_is_given_up_counts_as_one_failure(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.BOOTING)
    await world.clock.settle()
    await world.until(State.ABANDONING, step_s=0.5)
    world.memory.is_down = True
    await world.clock.advance(120)
    world.memory.is_down = False
    await world.until(State.COOLING)
    assert await world.until(State.SHARED) == pytest.approx(30, abs=1)


async def test_the_history_says_why_a_pod_ended(world: World) -> None:
    await world.ready()
    await world.until(State.SHARED)
    [row] = world.memory.pods.values()
    assert row.cause is not None
    assert row.cause.startswith("idle for 6")


async def test_the_history_says_why_a_boot_failed(world: World) -> None:
    world.servers.usual.boot_s = 10_000
    world.burst()
    await world.until(State.COOLING)
    [row] = world.memory.pods.values()
    assert row.cause is not None
    assert row.cause.startswith("not ready 36")


async def test_a_pod_that_was_renamed_is_left_alone_and_nobody_says_that_it_is_gone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pod = await world.ready()
    pod.name = "somebody-elses"
    await world.until(State.SHARED)
    assert pod.ended_s is None
    assert not world.cloud.terminations
    assert "has another name now" in caplog.text
    assert "confirms" not in caplog.text


async def test_a_signal_that_comes_with_the_last_look_moves_the_session_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await world.ready()
    world.servers.probe_s = 5
    await world.clock.advance_until(lambda: world.servers.asked == pod.id, within_s=700)
    world.cloud.vanish(pod.id)
    world.signals.send(ALICE, Event.VANISHED, "the cloud does not know the pod any more")
    await world.until(State.SHARED, within_s=10)
    assert world.events()[-2:] == [Event.VANISHED, Event.ENDED]
    assert "failed" not in caplog.text


async def test_one_task_drives_a_session_whose_user_bursts_while_its_end_is_saved(world: World) -> None:
    await world.ready()
    await world.until(State.TERMINATING)
    world.memory.call_s = 2
    await world.until(State.SHARED, step_s=0.5)
    world.burst()
    await world.until(State.READY)
    await world.clock.advance(10)
    assert len(world.cloud.orders) == 2
    assert len(world.cloud.living()) == 1
    assert world.events().count(Event.ORDERED) == 2
    before = world.servers.samples[world.pod().id]
    await world.clock.advance(600 - 30)
    assert world.servers.samples[world.pod().id] - before <= 10


async def test_forgotten_signals_do_not_end_the_next_pod(world: World) -> None:
    world.cloud.create_s = 10
    world.cloud.creates.append(Create.UNAUTHORIZED)
    world.burst()
    await world.clock.settle()
    assert world.state() is State.CREATING
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.SHARED)
    await world.ready()


async def test_a_stop_while_the_order_is_out_ends_the_pod_as_soon_as_it_is_known(world: World) -> None:
    world.cloud.create_s = 10
    world.burst()
    await world.clock.settle()
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.SHARED, within_s=60)
    assert len(world.cloud.pods) == 1
    assert not world.cloud.living()
    assert Event.HEALTHY not in world.events()


@pytest.mark.parametrize("state", [State.BOOTING, State.VERIFYING, State.DRAINING])
async def test_a_stop_is_obeyed_while_the_session_waits(world: World, state: State) -> None:
    await reach(world, state)
    world.signals.send(ALICE, Event.STOPPED, "an operator wants it gone")
    await world.until(State.SHARED, within_s=5, step_s=0.5)
    assert not world.cloud.living()


async def test_a_session_whose_steps_keep_failing_gives_its_pod_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.burst()
    await world.until(State.BOOTING)

    async def broken(*_args: object, **_more: object) -> None:
        raise KeyError("a bug of ours")

    world.servers.probe = broken  # type: ignore[assignment, method-assign]
    await world.until(State.COOLING, within_s=120)
    assert not world.cloud.living()
    failures = [record for record in caplog.records if "step of state booting failed" in record.getMessage()]
    assert len(failures) == MOST_STEP_FAILURES


async def test_a_step_that_fails_now_and_then_does_not_cost_the_pod(world: World) -> None:
    await world.ready()
    world.prompts(ALICE, is_done=False)
    sample = world.servers.sample
    calls = 0

    async def flaky(url: str, *, token: str) -> object:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyError("a bug of ours")
        return await sample(url, token=token)

    world.servers.sample = flaky  # type: ignore[assignment, method-assign]
    await world.clock.advance(60 * 100)
    assert world.state() is State.READY


async def test_two_users_have_two_pods_and_two_routes(world: World) -> None:
    await world.ready(ALICE)
    await world.ready(BOB)
    alices, bobs = world.routes.private(ALICE), world.routes.private(BOB)
    assert alices is not None
    assert bobs is not None
    assert alices.id != bobs.id
    assert alices.token != bobs.token


# -- restarts


@pytest.mark.parametrize("state", STATES_WITH_A_POD)
async def test_after_a_restart_in_any_state_there_is_one_pod_and_it_ends(
    clock: FakeClock, state: State
) -> None:
    world = World(clock)
    world.cloud.create_s = 5
    world.cloud.call_s = 0.5
    world.run_loops()
    await reach(world, state)
    await world.restart(with_loops=True)
    most_living = 0
    for _ in range(2500):
        await clock.advance(1)
        most_living = max(most_living, len(world.cloud.living()))
    assert most_living <= 1
    assert not world.cloud.living()
    assert world.state() is State.SHARED
    assert len(world.cloud.orders) <= 1
    await world.stop()


@pytest.mark.parametrize("state", [State.BOOTING, State.VERIFYING, State.READY])
async def test_after_a_restart_the_same_pod_serves_again(world: World, state: State) -> None:
    world.servers.usual.agent_s = 10
    world.burst()
    await world.until(state)
    pod = world.pod()
    world.servers.probe_s = 1
    await world.restart(with_loops=True)
    assert world.routes.private(ALICE) is None
    await world.until(State.READY)
    assert world.pod() is pod
    route = world.routes.private(ALICE)
    assert route is not None
    assert route.token == KEYS.pod_token(pod.name)


async def test_a_restart_while_the_order_is_out_looks_for_the_pod_and_buys_no_second(world: World) -> None:
    world.cloud.create_s = 5
    world.burst()
    await world.clock.advance(1)
    assert world.state() is State.CREATING
    name = world.sessions.get(ALICE).pod
    assert name is not None
    made = world.cloud.make(name.name, gpu_type="RTX 4090")  # the call arrived; its answer did not
    await world.restart()
    await world.until(State.READY)
    assert world.pod() is made
    assert not world.cloud.orders


async def test_a_pod_that_is_dead_after_a_restart_is_ended(world: World) -> None:
    pod = await world.ready()
    await world.clock.settle()
    world.servers.mood(pod.id).is_healthy = False
    await world.restart()
    assert world.state() is State.CHECKING
    took_s = await world.until(State.SHARED)
    assert 360 <= took_s <= 370
    assert not world.cloud.living()


async def test_a_pod_that_went_while_the_gateway_was_down_is_noticed_by_the_list(world: World) -> None:
    pod = await world.ready()
    await world.clock.settle()
    world.cloud.vanish(pod.id)
    await world.restart(with_loops=True)
    await world.until(State.SHARED, within_s=60)


async def test_a_user_whose_session_ended_before_a_restart_can_burst_again(world: World) -> None:
    await world.ready()
    await world.until(State.SHARED)
    await world.clock.settle()
    await world.restart()
    assert world.state() is State.SHARED
    await world.ready()
    assert len(world.cloud.living()) == 1


async def test_cancelled_at_the_end_of_the_gateway_no_task_is_left(world: World) -> None:
    await world.ready()
    before = asyncio.all_tasks()
    await world.stop()
    await world.clock.settle()
    assert asyncio.all_tasks() <= before
    assert world.clock.sleepers == 0


async def test_a_pod_that_fetches_models_may_take_longer_than_the_timeout(world: World) -> None:
    world.servers.usual.boot_s, world.servers.usual.agent_s = 850, -840
    world.burst()
    await world.until(State.BOOTING)
    mood = world.servers.mood(world.pod().id)
    for megabytes in range(80):
        mood.synced_bytes = megabytes * 1_000_000
        await world.clock.advance(10)
    assert world.state() is State.BOOTING
    await world.until(State.READY)


async def test_a_pod_whose_models_stand_still_is_given_up(world: World) -> None:
    usual = world.servers.usual
    usual.boot_s, usual.agent_s, usual.synced_bytes = 10_000, -9_990, 5
    world.burst()
    took_s = await world.until(State.ABANDONING)
    assert 360 <= took_s <= 366


@pytest.mark.parametrize("waits", [True, False])
async def test_a_pod_waits_for_its_models_only_where_that_is_asked_for(clock: FakeClock, waits: bool) -> None:
    world = World(clock, rules=with_rules(waits_for_models=waits))
    world.servers.usual.synced_bytes = 0
    world.burst()
    await world.until(State.BOOTING)
    mood = world.servers.mood(world.pod().id)
    for fetched in range(12):
        mood.synced_bytes = fetched
        await world.clock.advance(5)
    assert world.state() is (State.VERIFYING if waits else State.READY)
    mood.synced_bytes = None
    await world.until(State.READY)
    await world.stop()


async def test_a_pod_with_an_old_image_is_drained_after_a_restart(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(min_agent="0.2"))
    await world.ready()  # a new pod of an old image is used: ending it would only buy the same again
    await world.restart()
    await world.until(State.SHARED)
    assert Event.STOPPED in world.events()
    assert not world.cloud.living()
    await world.stop()


async def test_a_pod_with_a_new_enough_image_stays_after_a_restart(clock: FakeClock) -> None:
    world = World(clock, rules=with_rules(min_agent="0.1"))
    await world.ready()
    await world.restart()
    await world.until(State.READY)
    assert Event.STOPPED not in world.events()
    await world.stop()


async def test_a_pod_whose_comfyui_died_gives_its_user_back_after_three_looks(world: World) -> None:
    pod = await world.ready()
    mood = world.servers.mood(pod.id)
    mood.is_healthy, mood.queue = False, None
    took_s = await world.until(State.SHARED)
    assert 120 <= took_s <= 240
    assert Event.VANISHED in world.events()
    assert not world.cloud.living()


async def test_a_comfyui_that_was_mute_for_two_looks_keeps_its_pod(world: World) -> None:
    pod = await world.ready()
    mood = world.servers.mood(pod.id)
    for _ in range(3):
        mood.is_healthy, mood.queue = False, None
        await world.clock.advance(100)
        mood.is_healthy, mood.queue = True, 1
        await world.clock.advance(100)
    assert world.state() is State.READY


async def test_a_pod_that_the_cloud_has_lost_is_left_within_seconds_of_the_first_suspicion(
    world: World,
) -> None:
    pod = await world.ready()
    await world.clock.advance(10)
    world.cloud.vanish(pod.id)
    world.signals.nudge(ALICE)
    await world.clock.advance(5)
    assert world.routes.current(ALICE).source is Source.DUTY
    assert Event.VANISHED in world.events()


async def test_nudges_however_many_do_not_end_a_pod_that_is_mute_for_a_moment(world: World) -> None:
    """Clients can make requests fail as often as they like."""
    pod = await world.ready()
    mood = world.servers.mood(pod.id)
    mood.is_healthy, mood.queue = False, None
    for _ in range(200):
        world.signals.nudge(ALICE)
        await world.clock.advance(0.1)
    assert world.state() is State.READY
    mood.is_healthy, mood.queue = True, 1
    await world.clock.advance(200)
    assert world.state() is State.READY


async def test_nudges_have_a_pod_that_lives_looked_at_now_and_then_only(world: World) -> None:
    pod = await world.ready()
    before = world.servers.samples[pod.id]
    for _ in range(100):
        world.signals.nudge(ALICE)
        await world.clock.advance(0.1)
    assert world.servers.samples[pod.id] - before <= 8
    assert world.state() is State.READY


async def test_a_pod_that_does_not_answer_is_not_left_on_the_word_of_one_list(world: World) -> None:
    pod = await world.ready()
    mood = world.servers.mood(pod.id)
    mood.is_healthy, mood.queue = False, None
    world.cloud.is_failing = True
    world.signals.nudge(ALICE)
    await world.clock.advance(30)
    assert world.state() is State.READY


async def test_a_pod_that_the_cloud_says_runs_is_given_the_usual_patience(world: World) -> None:
    pod = await world.ready()
    mood = world.servers.mood(pod.id)
    mood.is_healthy, mood.queue = False, None
    world.signals.nudge(ALICE)
    await world.clock.advance(100)
    assert world.state() is State.READY
    await world.clock.advance(100)
    assert world.state() is not State.READY
