"""What several tests of the agent need."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent.stand import Agent, agent_at


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """ComfyUI's folder, with what ComfyUI makes in it."""
    for name in ("output", "input", "user"):
        (tmp_path / "comfy" / name).mkdir(parents=True)
    return tmp_path / "comfy"


@pytest.fixture
async def agent(home: Path) -> AsyncIterator[Agent]:
    async with agent_at(home) as running:
        yield running
