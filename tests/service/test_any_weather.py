"""Users, faults and restarts in any order: what has to hold all the same.

Each seed is one history. In an honest one the cloud fails but does not lie, and then a user never has two living
pods; in the others it makes doubles, makes pods after it said nothing, and hides young ones.
"""

import random
from collections.abc import Awaitable, Callable

import pytest

from comfy_gateway.core.prompts import Outcome
from comfy_gateway.core.session import Event, State
from comfy_gateway.core.users import IdKind, UserId
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create, RentedPod
from tests.service.world import World

USERS = [UserId(IdKind.NAMED, f"user{number}") for number in range(4)]
FOREIGN = [
    "comfy-gw-eu-alice-a1",
    "comfy-gwx-alice-a1",
    "comfy-gw-alice",
    "comfy-gw-Alice-a1",
    "my-training-run",
    "xcomfy-gw-alice-a1",
]
HONEST_CREATES = [
    Create.OK,
    Create.CAPACITY,
    Create.REFUSED,
    Create.UNAUTHORIZED,
    Create.LOST,
    Create.NOTHING,
]
SEEDS = range(60)


class History:
    """One random history of a gateway."""

    def __init__(self, seed: int, clock: FakeClock) -> None:
        self.chance = random.Random(seed)
        self.is_honest = seed % 2 == 0
        self.world = World(clock)
        self.world.servers.usual.boot_s = 30
        self.foreign = [self.world.cloud.make(name) for name in FOREIGN]
        self.open_prompts: list[str] = []
        self.actions: list[Callable[[], Awaitable[None]]] = [
            *[self.burst] * 6,
            *[self.work] * 3,
            *[self.finish] * 3,
            *[self.wait] * 8,
            *[self.spoil_creates] * 3,
            self.spoil_calls,
            self.spoil_store,
            self.lose_a_pod,
            self.lose_an_agent,
            self.stop_somebody,
            self.restart,
        ]

    async def burst(self) -> None:
        self.world.burst(self.chance.choice(USERS))

    async def work(self) -> None:
        self.open_prompts += self.world.prompts(self.chance.choice(USERS), is_done=False)

    async def finish(self) -> None:
        for prompt in self.open_prompts:
            self.world.ledger.end(prompt, Outcome.DONE)
        self.open_prompts.clear()

    async def wait(self) -> None:
        for _ in range(self.chance.choice([1, 3, 20, 60, 300])):
            await self.world.clock.advance(1)
            self.check()

    async def spoil_creates(self) -> None:
        outcomes = HONEST_CREATES if self.is_honest else list(Create)
        self.world.cloud.creates.append(self.chance.choice(outcomes))
        self.world.cloud.create_s = self.chance.choice([0, 0, 2, 12])

    async def spoil_calls(self) -> None:
        cloud, chance = self.world.cloud, self.chance
        cloud.is_failing = chance.random() < 0.3
        cloud.is_list_failing = chance.random() < 0.3
        cloud.call_s = chance.choice([0, 0, 0.5, 7])
        cloud.swallowed_terminations = chance.choice([0, 0, 1, 6])
        self.world.servers.probe_s = chance.choice([0, 0, 3])
        if not self.is_honest:
            cloud.list_lag_s = chance.choice([0, 5, 40])
            cloud.lists_drop.append({pod.id for pod in cloud.living() if chance.random() < 0.5})

    async def spoil_store(self) -> None:
        self.world.memory.is_down = self.chance.random() < 0.4
        self.world.memory.lost_answers = self.chance.choice([0, 0, 1, 3])
        self.world.memory.call_s = self.chance.choice([0, 0, 0.3, 4])

    async def lose_a_pod(self) -> None:
        living = [pod for pod in self.world.cloud.living() if pod not in self.foreign]
        if living:
            pod = self.chance.choice(living)
            self.chance.choice([self.world.cloud.exit, self.world.cloud.vanish])(pod.id)

    async def lose_an_agent(self) -> None:
        for pod in self.world.cloud.living():
            mood = self.world.servers.mood(pod.id)
            mood.has_agent = self.chance.random() < 0.5
            mood.is_healthy = self.chance.random() < 0.8

    async def stop_somebody(self) -> None:
        user = self.chance.choice(USERS)
        if self.world.state(user) not in {State.SHARED, State.COOLING}:
            self.world.signals.send(user, Event.STOPPED, "an operator wants it gone")

    async def restart(self) -> None:
        was_down, self.world.memory.is_down = self.world.memory.is_down, False
        await self.world.clock.advance(0)
        self.world.memory.call_s = 0
        self.open_prompts.clear()
        await self.world.restart(with_loops=True)
        self.world.memory.is_down = was_down

    async def calm_down(self) -> None:
        """Nothing fails any more, and nobody wants anything."""
        cloud, memory = self.world.cloud, self.world.memory
        cloud.is_failing = cloud.is_list_failing = memory.is_down = False
        cloud.call_s = cloud.create_s = cloud.list_lag_s = memory.call_s = self.world.servers.probe_s = 0
        cloud.swallowed_terminations = memory.lost_answers = 0
        cloud.lists_drop.clear()
        cloud.creates.clear()
        await self.finish()

    def check(self) -> None:
        """What holds at every moment."""
        assert all(pod.ended_s is None for pod in self.foreign), "somebody else's pod was ended"
        assert not set(self.world.cloud.terminations) & set(FOREIGN)
        for user in USERS:
            session = self.world.sessions.get(user)
            route = self.world.routes.private(user)
            assert (route is not None) == (session.state is State.READY)
            if self.is_honest:
                assert len(self.living(user)) <= 1, f"{user.name} has two pods"

    def living(self, user: UserId) -> list[RentedPod]:
        prefix = self.world.names.make(user, "x").rpartition("-")[0] + "-"
        return [pod for pod in self.world.cloud.living() if pod.name.startswith(prefix)]


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_no_pod_is_doubled_lost_or_taken_from_others(
    seed: int, clock: FakeClock
) -> None:
    history = History(seed, clock)
    world = history.world
    world.run_loops()
    for _ in range(60):
        await history.chance.choice(history.actions)()
        history.check()

    await history.calm_down()
    for _ in range(240):
        await clock.advance(1)
    for user in USERS:
        assert len(history.living(user)) <= 1, f"a double of {user.name} lives on"

    for _ in range(600):
        await clock.advance(5)
        history.check()
    assert not [pod.name for pod in world.cloud.living() if pod not in history.foreign]
    assert not list(world.sessions)
    assert not world.routes.privates()
    assert not world.ledger.unfinished()
    assert {row.state for row in world.memory.rows.values()} <= {State.SHARED}

    for user in USERS:
        await world.ready(user)
    await world.stop()
