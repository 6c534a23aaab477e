from collections.abc import AsyncIterator

import pytest

from simulators.comfyui import ComfySimulator
from tests.simulators.comfy_client import Duty, served_as


@pytest.fixture
async def duty() -> AsyncIterator[Duty]:
    async for one in served_as(ComfySimulator()):
        yield one


@pytest.fixture
async def private() -> AsyncIterator[Duty]:
    async for one in served_as(ComfySimulator(name="private")):
        yield one
