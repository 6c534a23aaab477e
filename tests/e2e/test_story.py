"""Any order of prompts, uploads, views, tabs, moves and deaths: everybody keeps what was promised.

The steps are a state machine of hypothesis; each example is a handful of users at once before one gateway, so that the
processes are paid for once. A failing example is printed whole, with the seed that makes all of them again.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from simulators.comfyui import ComfySimulator
from simulators.comfyui import serve as serve_comfy
from simulators.runpod import Delays, RunPodSimulator
from simulators.runpod import serve as serve_cloud
from tests.e2e.cloud import Cloud
from tests.e2e.gateway_process import running_gateway
from tests.e2e.story import Actor, Stage, Step
from tests.e2e.world import Duty

USERS = 6
SEED = int(os.environ.get("STORY_SEED") or random.randrange(1 << 32))

ON_DUTY = [
    Step.PROMPT,
    Step.SLOW,
    Step.UPLOAD,
    Step.LOAD,
    Step.TAB,
    Step.RECONNECT,
    Step.LOOK,
    Step.RESTART_DUTY,
]
ON_POD = [
    Step.PROMPT, Step.SLOW, Step.UPLOAD, Step.LOAD, Step.RECONNECT, Step.LOOK, Step.LINGER, Step.KILL_POD,
    Step.CRASH_POD, Step.RESTART_DUTY,
]  # fmt: skip


@st.composite
def days(draw: st.DrawFn) -> list[Step]:
    """Some steps on duty, mostly a move, some on the pod, and perhaps the way back and more."""
    steps = draw(st.lists(st.sampled_from(ON_DUTY), max_size=3))
    if draw(st.integers(0, 4)):
        steps += [Step.BURST, *draw(st.sampled_from([[], [Step.PRIVATE]]))]
        steps += draw(st.lists(st.sampled_from(ON_POD), max_size=6))
        steps += draw(st.lists(st.sampled_from(ON_DUTY), max_size=2))
    return steps


@asynccontextmanager
async def stage(state_dir: Path, confdir: Path) -> AsyncIterator[Stage]:
    """One gateway whose pods boot at once and are idle after a second and a half."""
    simulator = RunPodSimulator(
        api_key="test-key", delays=Delays(create_s=0.05, runtime_s=0.1, app_ready_s=0.3, agent_ready_s=0.3)
    )
    duty = ComfySimulator(name="duty", base_dir=state_dir / "duty")
    async with (
        serve_comfy(duty) as comfy,
        serve_cloud(simulator) as cloud,
        aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
        ) as http,
    ):
        shared = Duty(duty, comfy.url)
        chosen = Cloud(simulator, cloud).settings(
            shared,
            RUNPOD_TELEMETRY_IDLE_S="1.5",
            RUNPOD_MAX_ACTIVE_SESSIONS="50",
            RUNPOD_MAX_STARTING="0",
            BUDGET_HOURLY_USD="1000",
        )
        async with running_gateway(chosen, state_dir=state_dir, confdir=confdir) as gateway:
            try:
                yield Stage(http, gateway.url, shared, simulator)
            finally:
                (state_dir / "gateway.log").write_text(gateway.log)
            assert "Traceback" not in gateway.log, gateway.log


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "examples", [pytest.param(5, id="30-days"), pytest.param(84, id="504-days", marks=pytest.mark.long)]
)
def test_nobody_loses_anything_whatever_happens(examples: int, tmp_path: Path, confdir: Path) -> None:
    print(f"STORY_SEED={SEED}")  # shown when it fails
    count = 0

    @seed(SEED)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a shrunk example of real processes is another story
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(days(), min_size=USERS, max_size=USERS))
    def tell(plans: list[list[Step]]) -> None:
        nonlocal count
        count += 1
        began.duty_restarts = 0
        runner.run(play(began, count, plans))

    with asyncio.Runner() as runner:
        opened = stage(tmp_path, confdir)
        began = runner.run(opened.__aenter__())
        try:
            tell()
        finally:
            runner.run(opened.__aexit__(None, None, None))
    assert count >= examples


async def play(on: Stage, example: int, plans: list[list[Step]]) -> None:
    """All users at once; the first who lost something fails the example."""
    async with asyncio.TaskGroup() as group:
        for number, steps in enumerate(plans):
            actor = Actor(on, f"story{example}x{number}")
            group.create_task(actor.play(steps), name=f"{actor.name}: {', '.join(steps)}")
