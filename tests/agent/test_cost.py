"""What the agent costs the pod, as a process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from simulators.comfyui import ComfySimulator, serve
from tests.agent.stand import BEARER, agent_process, environment

ROOT = Path(__file__).parents[2]
SETTLE_S = 3.0
MEASURE_S = 20.0
MOST_CORE_SHARE = 0.01
MOST_RSS_BYTES = 60_000_000


async def listen(client: aiohttp.ClientSession) -> None:
    async with client.get("/stream", timeout=aiohttp.ClientTimeout(total=None)) as response:
        async for _ in response.content:
            pass


async def cost(home: Path, listeners: int) -> tuple[float, int]:
    """(share of a core, resident bytes) at one sample a second with a ComfyUI that answers."""
    async with (
        serve(ComfySimulator()) as comfy,
        agent_process(
            environment(home, AGENT_INTERVAL_S="1", COMFYUI_URL=comfy.url), is_measured=True
        ) as agent,
        aiohttp.ClientSession(agent.url, headers=BEARER, connector=aiohttp.TCPConnector(limit=0)) as client,
    ):
        tasks = [asyncio.get_running_loop().create_task(listen(client)) for _ in range(listeners)]
        process = psutil.Process(agent.process.pid)
        await asyncio.sleep(SETTLE_S)
        before = process.cpu_times()
        await asyncio.sleep(MEASURE_S)
        after = process.cpu_times()
        rss_bytes = process.memory_info().rss
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    used_s = after.user + after.system - before.user - before.system
    return used_s / MEASURE_S, rss_bytes


@pytest.mark.long
@pytest.mark.parametrize("listeners", [1, 100])
async def test_a_sample_a_second_costs_under_one_per_cent_of_a_core_and_60_mb(
    home: Path, listeners: int
) -> None:
    share, rss_bytes = await cost(home, listeners)
    print(f"{listeners} listeners: {100 * share:.2f} % of a core, {rss_bytes / 1e6:.1f} MB")
    assert share < MOST_CORE_SHARE
    assert rss_bytes < MOST_RSS_BYTES


def test_the_agent_needs_the_versions_that_the_gateway_is_tested_with() -> None:
    def pins(path: Path) -> set[str]:
        return {line for line in path.read_text().splitlines() if "==" in line}

    assert pins(ROOT / "agent/requirements.txt") <= pins(ROOT / "requirements.txt")


async def test_the_agent_imports_nothing_that_its_requirements_do_not_bring() -> None:
    """In a pod there is nothing else: a stray import would only show there."""
    code = (
        "import sys, agent.program\nprint(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={"PATH": os.environ["PATH"]}
    )
    said, _ = await process.communicate()
    loaded = set(said.decode().split())
    assert "aiohttp" in loaded
    assert loaded.isdisjoint(
        {"orjson", "pydantic", "sqlalchemy", "mitmproxy", "runpod", "comfy_gateway", "tenacity"}
    )
