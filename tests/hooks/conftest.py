"""What all tests of the hooks need."""

from collections.abc import AsyncIterator

import pytest

from comfy_gateway.hooks.edge import Edge
from tests.hooks.stand import Stand, standing


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    """An open gateway, with a home server and another duty server."""
    async with standing() as made:
        yield made


@pytest.fixture
def edge_for_tests(stand: Stand) -> Edge:
    """The real parts that the stand's hooks call."""
    return stand.edge
