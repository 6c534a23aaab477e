from collections.abc import AsyncIterator

import pytest

from tests.model_sync.mean_server import MeanServer


@pytest.fixture
async def server() -> AsyncIterator[MeanServer]:
    async with MeanServer().running() as running:
        yield running
