"""What all tests of services need."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.clock import FakeClock
from tests.service.world import World


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(clock: FakeClock) -> AsyncIterator[World]:
    """A gateway's services over fakes of the clock and of the cloud side."""
    made = World(clock)
    yield made
    await made.stop()
