"""A ComfyUI to be asked: the simulated one, or a real one in its place."""

import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from simulators.comfyui import ComfySimulator, Served, serve
from tests.simulators.comfy_client import Duty, eventually

BOTH = pytest.mark.parametrize(
    "server", ["simulated", pytest.param("real", marks=pytest.mark.comfyui)], indirect=True
)
"""For tests that hold for both. The real one is named by COMFYUI_URL and may be played with: its history and
queue are cleared, and files whose names begin with `likeness` stay in its folders."""


@contextlib.asynccontextmanager
async def one_of(kind: str) -> AsyncIterator[Duty]:
    """`sim` of the real one is a simulator that was never started: no test may steer it."""
    if kind == "simulated":
        sim = ComfySimulator()
        async with serve(sim) as served, aiohttp.ClientSession(served.url) as http:
            yield Duty(sim, served, http)
        return
    url = os.environ.get("COMFYUI_URL", "").rstrip("/") + "/"
    if url == "/":
        pytest.skip("COMFYUI_URL names no ComfyUI")
    async with aiohttp.ClientSession(url) as http:
        duty = Duty(ComfySimulator(), Served(url, 0), http)
        await empty_the_queue(duty)
        yield duty
        await empty_the_queue(duty)


async def empty_the_queue(duty: Duty) -> None:
    await duty.post("queue", {"clear": True})
    await duty.post("interrupt", {})
    await until_idle(duty)
    await duty.post("history", {"clear": True})


async def until_idle(duty: Duty) -> None:
    """Returns once no prompt runs or waits."""

    async def idle() -> bool:
        told: dict[str, Any] = await duty.get("queue")
        return not told["queue_running"] and not told["queue_pending"]

    await eventually(idle)


def fresh(what: str = "likeness") -> str:
    """A name that no earlier run has used."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


def slow() -> dict[str, Any]:
    """A prompt that takes a second or more on any server, and can be interrupted between its nodes."""
    scale = {"upscale_method": "lanczos", "width": 3000, "height": 3000, "crop": "disabled"}
    nodes: dict[str, Any] = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {
                "width": 3001,
                "height": 3001,
                "batch_size": 1,
                "color": uuid.uuid4().int % 0xFFFFFF,
            },
        }
    }
    for number in range(2, 12):
        scaled = {**scale, "image": [str(number - 1), 0], "width": 3000 + number}
        nodes[str(number)] = {"class_type": "ImageScale", "inputs": scaled}
    nodes["99"] = {"class_type": "PreviewImage", "inputs": {"images": ["11", 0]}}
    return nodes
