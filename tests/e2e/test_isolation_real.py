"""Two users before a real ComfyUI (``COMFYUI_URL``): what one tries against the other's work."""

import random
from typing import Any

import aiohttp

from tests.e2e.conftest import StartGateway
from tests.e2e.isolation_story import (
    TAB,
    Guest,
    an_identical_prompt,
    at_work,
    listen_in,
    try_to_see,
    try_to_touch,
)
from tests.e2e.test_real_comfyui import PREFIX, comfyui, pytestmark

__all__ = ["comfyui", "pytestmark"]


def picture(size: int = 64) -> dict[str, Any]:
    """One of a colour that the server has not cached; a large one takes it a second or two."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": size, "height": size, "batch_size": 1, "color": random.randrange(1 << 24)},
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": PREFIX}},
    }


def slow() -> dict[str, Any]:
    """A workflow of a second or two."""
    return picture(6_000)


async def test_in_full_nothing_of_alice_is_seen_or_touched_and_bob_works_as_if_alone(
    comfyui: str,
    start_gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    async with start_gateway(DUTY_POD_URL=comfyui, ISOLATION="full") as gateway:
        alice, bob = (Guest(http, gateway.url, name, TAB) for name in ("alice", "bob"))
        async with alice.socket() as events:
            work = await at_work(alice, events, picture(), slow)

            async def attack() -> None:
                await try_to_touch(bob, work)
                await try_to_see(bob, work, is_queue_still=False)
                await work.has_suffered_nothing()

            heard = await listen_in(bob, attack)
            assert {message["type"] for message in heard} == {"status"}
        await an_identical_prompt(bob, work)


async def test_with_actions_nothing_of_alice_is_touched(
    comfyui: str,
    start_gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway:
        alice, bob = (Guest(http, gateway.url, name, TAB) for name in ("alice", "bob"))
        async with alice.socket() as events:
            work = await at_work(alice, events, picture(), slow)
            await try_to_touch(bob, work)
            assert work.done in await bob.read("/history")
            assert (await bob.get(f"/view?{work.view}")).status == 200
            await work.has_suffered_nothing()
