"""When a pod ends itself: the rule as a table, and the watch over simulated days."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest

from agent.comfyui import Queue
from agent.lease import Facts, Terms, Verdict, decide
from agent.lease_watch import LeaseWatch
from tests.agent.stand import AgentsFakeClock

TERMS = Terms(lease_s=1200, boot_grace_s=2700, hard_max_s=14400, queue_silence_s=300)
IDLE = Facts(now_s=0, started_s=0, renewed_s=None, queue_length=0, queue_heard_s=0, unfetched_files=0)
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (replace(IDLE, now_s=2699.9), Verdict.BOOTING),
        (replace(IDLE, now_s=2700), Verdict.END),
        (replace(IDLE, now_s=2700, renewed_s=1500.1), Verdict.HELD),
        (replace(IDLE, now_s=2700, renewed_s=1500), Verdict.END),
        (replace(IDLE, now_s=1300, renewed_s=100), Verdict.END),
        (replace(IDLE, now_s=2700, queue_length=1), Verdict.BUSY),
        (replace(IDLE, now_s=2700, unfetched_files=1), Verdict.UNFETCHED),
        (replace(IDLE, now_s=2700, unfetched_files=None), Verdict.UNFETCHED),
        (replace(IDLE, now_s=2700, queue_length=1, unfetched_files=1), Verdict.BUSY),
        (replace(IDLE, now_s=14399, queue_length=1, unfetched_files=1), Verdict.BUSY),
        (replace(IDLE, now_s=14400, queue_length=1, unfetched_files=1), Verdict.END_AT_LAST),
        (replace(IDLE, now_s=20000, renewed_s=5601, unfetched_files=1), Verdict.UNFETCHED),
        (replace(IDLE, now_s=20001, renewed_s=5601, unfetched_files=1), Verdict.END_AT_LAST),
        (replace(IDLE, now_s=2700, queue_length=None, queue_heard_s=2401), Verdict.SILENT_QUEUE),
        (replace(IDLE, now_s=2700, queue_length=None, queue_heard_s=2400), Verdict.END),
        (replace(IDLE, now_s=2700, queue_length=None, queue_heard_s=None), Verdict.END),
        (replace(IDLE, now_s=2700, queue_length=None, queue_heard_s=None, unfetched_files=2), Verdict.UNFETCHED),
    ],
)  # fmt: skip
def test_the_rule(facts: Facts, verdict: Verdict) -> None:
    assert decide(facts, TERMS) is verdict


def test_a_renewal_holds_the_pod_whatever_else_is_true() -> None:
    for queue, heard, files in itertools.product([None, 0, 5], [None, 0.0], [None, 0, 5]):
        facts = Facts(
            now_s=1e6, started_s=0, renewed_s=1e6 - 1199, queue_length=queue, queue_heard_s=heard, unfetched_files=files
        )  # fmt: skip
        assert decide(facts, TERMS) is Verdict.HELD


@dataclass
class World:
    """A pod's surroundings on a fake clock."""

    clock: AgentsFakeClock = field(default_factory=AgentsFakeClock)
    queue: Queue | None = field(default_factory=lambda: Queue(0, 0))
    unfetched: int | Exception = 0
    is_gone: bool = True
    ended_at_s: list[float] = field(default_factory=list)
    scans: int = 0
    meanwhile: Callable[[], None] = lambda: None

    async def count(self) -> int:
        self.scans += 1
        self.meanwhile()
        if isinstance(self.unfetched, Exception):
            raise self.unfetched
        return self.unfetched

    async def end(self) -> bool:
        self.ended_at_s.append(self.clock.monotonic())
        return self.is_gone

    @contextlib.asynccontextmanager
    async def watched(self, terms: Terms = TERMS) -> AsyncIterator[LeaseWatch]:
        watch = LeaseWatch(terms, self.clock, queue=lambda: self.queue, unfetched=self.count, ending=self)
        task = asyncio.get_running_loop().create_task(watch.run())
        try:
            yield watch
        finally:
            assert not task.done(), "the watch never ends by itself"
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def live(
        self,
        watch: LeaseWatch,
        for_s: float,
        *,
        renew_every_s: float,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        until_s = self.clock.monotonic() + for_s
        while self.clock.monotonic() < until_s:
            watch.renew()
            each()
            await self.clock.advance(renew_every_s)


async def test_with_the_gateway_alive_no_pod_ends_in_a_day() -> None:
    world = World()
    async with world.watched() as watch:
        await world.live(watch, 24 * HOUR_S, renew_every_s=60)
    assert world.ended_at_s == []
    assert world.scans == 0, "the disk is only looked at when the lease ran out"


async def test_with_a_gateway_that_misses_most_of_its_turns_no_pod_ends_in_a_day() -> None:
    world = World(queue=None, unfetched=OSError("dead volume"))
    async with world.watched() as watch:
        await world.live(watch, 24 * HOUR_S, renew_every_s=1190)
    assert world.ended_at_s == []


@pytest.mark.parametrize("dies_after_s", [60, 3600, 12 * HOUR_S])
async def test_a_pod_ends_within_a_minute_of_its_lease_when_the_gateway_dies(dies_after_s: float) -> None:
    world = World()
    async with world.watched() as watch:
        await world.live(watch, dies_after_s, renew_every_s=60)
        last_s = world.clock.monotonic() - 60
        await world.clock.advance(24 * HOUR_S)
    assert last_s + 1200 <= world.ended_at_s[0] <= last_s + 1260


async def test_a_pod_that_no_gateway_ever_asked_ends_after_the_boot_grace() -> None:
    world = World()
    async with world.watched():
        await world.clock.advance(2 * HOUR_S)
    assert 2700 <= world.ended_at_s[0] <= 2760


async def test_work_delays_the_end_until_it_is_done() -> None:
    world = World(queue=Queue(1, 3))
    async with world.watched() as watch:
        watch.renew()
        await world.clock.advance(2 * HOUR_S)
        assert world.ended_at_s == []
        world.queue = Queue(0, 0)
        await world.clock.advance(60)
    assert len(world.ended_at_s) >= 1


@pytest.mark.parametrize("unfetched", [1, OSError("dead volume")])
async def test_unfetched_files_delay_the_end_up_to_the_hard_maximum(unfetched: int | Exception) -> None:
    world = World(unfetched=unfetched)
    async with world.watched() as watch:
        watch.renew()
        await world.clock.advance(14399)
        assert world.ended_at_s == []
        await world.clock.advance(61)
    assert 14400 <= world.ended_at_s[0] <= 14460


async def test_files_that_get_fetched_end_the_delay() -> None:
    world = World(unfetched=1)
    async with world.watched() as watch:
        watch.renew()
        await world.clock.advance(HOUR_S)
        world.unfetched = 0
        await world.clock.advance(60)
    assert 3600 <= world.ended_at_s[0] <= 3660


async def test_a_comfyui_that_fell_silent_is_waited_for_a_while() -> None:
    world = World()
    async with world.watched() as watch:
        watch.renew()
        await world.clock.advance(1100)
        world.queue = None
        await world.clock.advance(200)
        assert world.ended_at_s == []
        await world.clock.advance(160)
    assert len(world.ended_at_s) >= 1


async def test_the_end_is_tried_for_ever_and_ever_more_slowly() -> None:
    world = World(is_gone=False)
    async with world.watched() as watch:
        watch.renew()
        await world.clock.advance(24 * HOUR_S)
    pauses = [later - earlier for earlier, later in itertools.pairwise(world.ended_at_s)]
    assert pauses[:5] == [10, 20, 40, 80, 160]
    assert set(pauses[5:]) == {300}
    assert len(pauses) > 200


async def test_a_gateway_that_comes_back_stops_the_ending_and_the_next_one_begins_afresh() -> None:
    world = World(is_gone=False)
    async with world.watched() as watch:
        await world.clock.advance(HOUR_S)
        assert world.ended_at_s
        await world.live(watch, HOUR_S, renew_every_s=60)
        world.ended_at_s.clear()
        await world.live(watch, HOUR_S, renew_every_s=60)
        assert world.ended_at_s == []
        await world.clock.advance(1300)
    assert world.ended_at_s[1] - world.ended_at_s[0] == 10


async def test_a_renewal_while_the_files_are_counted_counts() -> None:
    world = World()
    async with world.watched() as watch:
        world.meanwhile = watch.renew
        await world.clock.advance(2800)
    assert world.ended_at_s == []


async def test_trouble_in_a_look_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(unfetched=RuntimeError("a bug"))
    async with world.watched():
        await world.clock.advance(2800)
        world.unfetched = 0
        await world.clock.advance(60)
    assert "could not be looked at" in caplog.text
    assert world.ended_at_s


async def test_each_change_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "agent.lease_watch")
    world = World(queue=Queue(1, 0))
    async with world.watched() as watch:
        await world.live(watch, HOUR_S, renew_every_s=60)
        await world.clock.advance(2 * HOUR_S)
    said = [record.message for record in caplog.records]
    assert [line.split(" (")[0].removeprefix("Lease: ") for line in said] == [
        Verdict.BOOTING.value,
        Verdict.HELD.value,
        Verdict.BUSY.value,
    ]
