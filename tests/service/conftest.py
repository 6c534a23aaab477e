"""What all tests of services need."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.clock import FakeClock
from tests.service.world import World


@pytest.fixture(autouse=True)
async def _eager_tasks() -> None:
    """mitmproxy's event loop starts tasks eagerly; so do ours here."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(clock: FakeClock, _eager_tasks: None) -> AsyncIterator[World]:
    """A gateway's services over fakes of the clock and of the cloud side."""
    made = World(clock)
    yield made
    await made.stop()
