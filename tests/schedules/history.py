"""Plays a schedule on fake time and looks at every second whether all that was promised holds."""

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.money.market import MarketLimits, starting
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.prompts import Outcome
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import RentedPod
from tests.schedules.schedule import (
    DOUBLE_S,
    MOST_STARTING,
    ORPHAN_S,
    UNACCOUNTED_S,
    USERS,
    WRONG_ROUTE_S,
    Kind,
    Schedule,
    Step,
)
from tests.service.world import World, with_rules

PEOPLE = [UserId(IdKind.NAMED, f"user{number}") for number in range(USERS)]
FOREIGN = [
    "comfy-gw-eu-alice-a1",
    "comfy-gwx-alice-a1",
    "comfy-gw-alice",
    "comfy-gw-Alice-a1",
    "my-training-run",
    "xcomfy-gw-alice-a1",
]
"""Names in the account that are not ours, however much they look like it."""


class History:
    """One life of a gateway, or several where it is killed."""

    def __init__(
        self, schedule: Schedule, clock: FakeClock, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._tell = tell
        self.world = World(clock, rules=with_rules(market=MarketLimits(max_starting=MOST_STARTING)))
        self.world.servers.usual.boot_s = 30
        self.foreign = [self.world.cloud.make(name, cost_per_hour_usd=0.0) for name in FOREIGN]
        self._open_prompts: list[str] = []
        self._orphans: set[str] = set()
        """Names of pods of which the gateway has lost all memory. They end by their own, later rule."""
        self._was_killed = False
        """The store may have older states than those that were lost: more may be starting than had begun."""
        self._truth_s: float | None = None
        """Since when nothing fails or lies and the gateway runs; None while something does."""
        self._does: dict[Kind, Callable[[Step], Awaitable[None] | None]] = {
            Kind.BURST: lambda step: self.world.burst(PEOPLE[step.user]),
            Kind.HERD: lambda _: self._herd(),
            Kind.BAD_HOST: self._spoil_hosts,
            Kind.WORK: self._work,
            Kind.FINISH: lambda _: self._finish(),
            Kind.WAIT: lambda step: self._wait(step.seconds),
            Kind.CREATE: self._spoil_create,
            Kind.CALLS: self._spoil_calls,
            Kind.STORE: self._spoil_store,
            Kind.LOSE_POD: self._lose_pod,
            Kind.AGENTS: self._spoil_agents,
            Kind.STOP: self._stop,
            Kind.KILL: self._kill,
            Kind.AMNESIA: self._forget_all,
            Kind.CLOCK: self._set_clock,
            Kind.TRUTH: lambda _: self._end_faults(),
        }

    async def play(self) -> None:
        """Raises AssertionError naming the promise that was broken, and when."""
        self.world.run_loops()
        for step in self._schedule.steps:
            self._tell(f"{self._clock.monotonic():8.1f} s  {step}")
            done = self._does[step.kind](step)
            if done is not None:
                await done
            self.check()
        assert not [pod.name for pod in self.world.cloud.living() if pod not in self.foreign], (
            "a pod lives on"
        )
        assert not list(self.world.sessions)
        assert not self.world.routes.privates()
        assert {row.state for row in self.world.memory.rows.values()} <= {State.SHARED}
        spent_usd, most_usd = self.world.cloud.spent_usd(), self._schedule.most_usd()
        self._tell(f"spent {spent_usd:.3f} USD, at most {most_usd:.3f}")
        assert spent_usd <= most_usd, f"spent {spent_usd:.3f} USD instead of at most {most_usd:.3f}"
        for person in PEOPLE:
            await self.world.ready(person)

    async def stop(self) -> None:
        """The gateway ends."""
        await self.world.stop()

    def check(self) -> None:
        """What holds at this moment."""
        world, now_s = self.world, self._clock.monotonic()
        assert all(pod.ended_s is None for pod in self.foreign), "somebody else's pod was ended"
        assert not set(world.cloud.terminations) & set(FOREIGN), (
            "the end of somebody else's pod was asked for"
        )
        begun = starting([session.state for session in world.sessions])
        assert begun <= MOST_STARTING or self._was_killed, f"{begun} pods start at one time at {now_s:.0f} s"
        true_s = -1.0 if self._truth_s is None else now_s - self._truth_s
        for person in PEOPLE:
            route = world.routes.private(person)
            assert (route is not None) == (world.sessions.get(person).state is State.READY)
            assert world.routes.current(person) is not None, "a user is served by nobody"
            living = self.living(person)
            if self._schedule.is_honest or true_s > DOUBLE_S:
                assert len(living) <= 1, f"{person.name} has two pods at {now_s:.0f} s"
            if route is not None and true_s > WRONG_ROUTE_S:
                runs = [pod.name for pod in living if pod.is_running]
                assert route.id in runs, f"{person.name} is sent to a pod that does not run at {now_s:.0f} s"
        if true_s > ORPHAN_S:
            orphans = [pod.name for pod in world.cloud.living() if pod.name in self._orphans]
            assert not [name for name in orphans if name not in FOREIGN], (
                f"forgotten pods live at {now_s:.0f} s"
            )
        if true_s > UNACCOUNTED_S:
            for pod in world.cloud.living():
                assert pod in self.foreign or self._is_accounted_for(pod), (
                    f"{pod.name} is nobody's at {now_s:.0f} s"
                )

    def living(self, person: UserId) -> list[RentedPod]:
        """The pods that a user pays for at this moment."""
        prefix = self.world.names.make(person, "x").rpartition("-")[0] + "-"
        living = (pod for pod in self.world.cloud.living() if pod.name not in self._orphans)
        return [pod for pod in living if pod.name.startswith(prefix)]

    def _is_accounted_for(self, pod: RentedPod) -> bool:
        owners = (session.pod for session in self.world.sessions if session.pod is not None)
        return self.world.strays.knows(pod.id) or any(
            owned.pod_id == pod.id or (owned.pod_id is None and owned.name == pod.name) for owned in owners
        )

    def _herd(self) -> None:
        for person in PEOPLE:
            self.world.burst(person)

    def _spoil_hosts(self, _step: Step) -> None:
        self._truth_s = None
        for pod in self.world.cloud.living():
            pod.is_placed = pod in self.foreign

    def _work(self, step: Step) -> None:
        self._open_prompts += self.world.prompts(PEOPLE[step.user], is_done=False)

    def _finish(self) -> None:
        for prompt in self._open_prompts:
            self.world.ledger.end(prompt, Outcome.DONE)
        self._open_prompts.clear()

    async def _wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            await self._clock.advance(1)
            self.check()
        await self._clock.advance(seconds - int(seconds))

    def _spoil_create(self, step: Step) -> None:
        self._truth_s = None
        cloud = self.world.cloud
        cloud.creates.append(step.values["outcome"])
        cloud.create_s, cloud.answer_s = step.values["create_s"], step.values["answer_s"]

    def _spoil_calls(self, step: Step) -> None:
        self._truth_s = None
        cloud, values = self.world.cloud, step.values
        cloud.is_failing, cloud.is_list_failing = values["is_failing"], values["is_list_failing"]
        cloud.call_s, cloud.list_lag_s = values["call_s"], values["list_lag_s"]
        cloud.swallowed_terminations = values["swallowed"]
        self.world.servers.probe_s = values["probe_s"]
        if values["dropped"]:
            cloud.lists_drop.append({pod.id for pod in cloud.living()[1::2]})

    def _spoil_store(self, step: Step) -> None:
        self._truth_s = None
        memory, values = self.world.memory, step.values
        memory.is_down, memory.lost_answers = values["is_down"], values["lost_answers"]
        memory.call_s, memory.answer_s = values["call_s"], values["answer_s"]

    def _lose_pod(self, step: Step) -> None:
        self._truth_s = None
        living = [pod for pod in self.world.cloud.living() if pod not in self.foreign]
        if living:
            pod = living[int(step.values["which"] * len(living))]
            (self.world.cloud.exit if step.values["how"] == "exit" else self.world.cloud.vanish)(pod.id)

    def _spoil_agents(self, step: Step) -> None:
        self._truth_s = None
        chance = random.Random(step.values["seed"])
        for pod in self.world.cloud.living():
            mood = self.world.servers.mood(pod.id)
            mood.has_agent, mood.is_healthy = chance.random() < 0.5, chance.random() < 0.8

    def _stop(self, step: Step) -> None:
        person = PEOPLE[step.user]
        if self.world.state(person) not in {State.SHARED, State.COOLING}:
            self.world.signals.send(person, Event.STOPPED, "an operator wants it gone")

    async def _kill(self, step: Step, *, is_memory_lost: bool = False) -> None:
        self._was_killed = True
        await self._clock.advance(step.seconds)
        memory = self.world.memory
        was, memory.is_down, memory.call_s = (memory.is_down, memory.call_s), False, 0.0
        self._open_prompts.clear()
        await self.world.kill()
        if is_memory_lost:
            self._orphans |= {pod.name for pod in self.world.cloud.living()} | self.world.cloud.under_way()
            memory.rows.clear()
            memory.pods.clear()
            memory.strays.clear()
        await self.world.restart(with_loops=True)
        memory.is_down, memory.call_s = was
        if self._truth_s is not None:
            self._truth_s = self._clock.monotonic()

    async def _forget_all(self, step: Step) -> None:
        self._truth_s = None
        await self._kill(step, is_memory_lost=True)

    def _set_clock(self, step: Step) -> None:
        self._truth_s = None
        self._clock.set_wall(timedelta(seconds=step.values["jump_s"]))

    def _end_faults(self) -> None:
        cloud, memory = self.world.cloud, self.world.memory
        cloud.is_failing = cloud.is_list_failing = memory.is_down = False
        cloud.call_s = cloud.create_s = cloud.answer_s = cloud.list_lag_s = 0
        memory.call_s = memory.answer_s = self.world.servers.probe_s = 0
        cloud.swallowed_terminations = memory.lost_answers = 0
        cloud.lists_drop.clear()
        for pod in cloud.living():
            pod.is_placed = True
        cloud.creates.clear()
        self._finish()
        self._truth_s = self._clock.monotonic()
