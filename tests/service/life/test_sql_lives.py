"""Whole lives over the real store: SQLite in a file, in threads of its own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfy_gateway.adapters.sql.store import SqlSessionStore, open_store
from comfy_gateway.core.life.session import State
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import Create
from tests.service.world import ALICE, World

DEADLINE_S = 20.0


@pytest.fixture
async def sql(tmp_path: Path) -> AsyncIterator[SqlSessionStore]:
    store = await open_store(f"sqlite:///{tmp_path / 'gateway.db'}")
    yield store
    await store.aclose()


async def until(world: World, state: State) -> None:
    """Advance the fake clock, and leave the store's threads real time to answer in between."""
    async with asyncio.timeout(DEADLINE_S):
        while world.state() is not state:
            await world.clock.advance(1)
            await asyncio.sleep(0.002)


async def until_stored(world: World, sql: SqlSessionStore, state: State | None) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while [session.state for session in await sql.load_sessions()] != ([] if state is None else [state]):
            await world.clock.advance(1)
            await asyncio.sleep(0.002)


async def test_a_whole_life_and_the_next_one_after_a_restart(clock: FakeClock, sql: SqlSessionStore) -> None:
    world = World(clock, store=sql)
    for _ in range(2):
        world.burst()
        await until(world, State.READY)
        await until(world, State.SHARED)
        await until_stored(world, sql, None)
        await world.restart(with_loops=True)
    assert len(world.cloud.pods) == 2
    assert not world.cloud.living()
    assert all([await sql.knows_pod(pod.name) for pod in world.cloud.pods])
    await world.stop()


async def test_the_same_pod_serves_again_after_a_restart(clock: FakeClock, sql: SqlSessionStore) -> None:
    world = World(clock, store=sql)
    world.burst()
    await until(world, State.READY)
    await until_stored(world, sql, State.READY)
    pod = world.pod()
    await world.restart(with_loops=True)
    await until(world, State.READY)
    assert world.pod() is pod
    assert len(world.cloud.orders) == 1
    await until_stored(world, sql, State.READY)
    await world.stop()


async def test_a_stray_that_the_store_knows_is_ended_at_once(
    clock: FakeClock, sql: SqlSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World(clock, store=sql)
    world.run_loops()
    world.cloud.creates.append(Create.DOUBLE)
    world.burst()
    await until(world, State.READY)
    async with asyncio.timeout(DEADLINE_S):
        while len(world.cloud.living()) > 1:
            await clock.advance(1)
            await asyncio.sleep(0.002)
    assert world.cloud.living() == [world.pod()]
    await world.stop()


async def test_a_store_that_is_closed_under_way_keeps_no_pod_alive(
    clock: FakeClock, sql: SqlSessionStore
) -> None:
    world = World(clock, store=sql)
    world.burst()
    await until(world, State.READY)
    await until_stored(world, sql, State.READY)
    await sql.aclose()
    async with asyncio.timeout(DEADLINE_S):
        while world.cloud.living():
            await clock.advance(5)
            await asyncio.sleep(0)
    assert world.state() is State.TERMINATING
    assert world.sessions.get(ALICE).pod is not None
    await world.stop()
