"""Two users before a real ComfyUI (``COMFYUI_URL``): what one tries against the other's work."""

import io
import random
from typing import Any

import aiohttp
import pytest
from PIL import Image
from playwright.async_api import Browser

from tests.conditions import wait_for
from tests.e2e.conftest import StartGateway
from tests.e2e.front_end import FrontEnd, empty_to_save
from tests.e2e.isolation_story import (
    TAB,
    Guest,
    an_identical_prompt,
    at_work,
    homes_are_each_ones_own,
    inputs_are_each_ones_own,
    listen_in,
    try_to_see,
    try_to_touch,
    try_to_use,
)
from tests.e2e.test_real_comfyui import (
    PREFIX,
    a_colour,
    as_colour,
    browser,
    comfyui,
    fresh_profile,
    pytestmark,
)

__all__ = ["browser", "comfyui", "pytestmark"]


def picture(size: int = 64) -> dict[str, Any]:
    """One of a colour that the server has not cached; a large one takes it a second or two."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": size, "height": size, "batch_size": 1, "color": random.randrange(1 << 24)},
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": PREFIX}},
    }


def pixels(data: bytes) -> bytes:
    """What a picture shows."""
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


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
                await try_to_use(bob, work)
                await work.has_suffered_nothing()

            heard = await listen_in(bob, attack)
            assert {message["type"] for message in heard} == {"status"}
        await an_identical_prompt(bob, work)


async def test_in_full_inputs_and_homes_are_each_ones_own(
    comfyui: str,
    start_gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    name = f"{PREFIX}-{random.randrange(1 << 40)}.png"
    async with start_gateway(DUTY_POD_URL=comfyui, ISOLATION="full") as gateway:
        alice, bob = (Guest(http, gateway.url, name, f"tab-of-{name}") for name in ("alice", "bob"))
        made, his = await inputs_are_each_ones_own(alice, bob, name)
        assert pixels(made) == pixels(his)
        # Homes outlive a test: these two have none yet, whatever the gateway's secret is.
        alice, bob = (Guest(http, gateway.url, f"{who}-{name}", who) for who in ("alice", "bob"))
        await homes_are_each_ones_own(alice, bob, name)


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


async def test_a_newcomer_has_a_turn_before_who_queued_twenty(
    comfyui: str,
    start_gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    """On the real queue, which is a heap on the numbers that the gateway gives."""
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway:

        async def queue(user: str, count: int) -> list[str]:
            ids = []
            for _ in range(count):
                body = {"prompt": picture(1500), "client_id": f"{user}-{PREFIX}"}
                headers = {"X-Comfy-User": user}
                async with http.post(f"{gateway.url}/prompt", json=body, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    ids.append((await answer.json())["prompt_id"])
            return ids

        of_a, of_b = await queue("alice", 20), await queue("bob", 2)

        async def endings() -> dict[str, int]:
            async with http.get(f"{comfyui.rstrip('/')}/history") as answer:
                history = await answer.json()
            return {
                one: next(
                    what["timestamp"]
                    for kind, what in item["status"]["messages"]
                    if kind == "execution_success"
                )
                for one, item in history.items()
                if one in {*of_a, *of_b}
            }

        async def all_ended() -> bool:
            return len(await endings()) == 22

        await wait_for(all_ended, "all to end", deadline_s=120)
        at_ms = await endings()
        assert sorted(of_a, key=lambda one: at_ms[one]) == of_a
        assert at_ms[of_b[0]] <= at_ms[of_b[1]]
        assert sum(at_ms[one] < at_ms[of_b[1]] for one in of_a) <= 5


@pytest.mark.chromium
async def test_bobs_page_works_beside_alices_prompts(
    comfyui: str,
    browser: Browser,
    start_gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    async with (
        start_gateway(DUTY_POD_URL=comfyui, ISOLATION="full") as gateway,
        fresh_profile(browser) as context,
    ):
        alice = Guest(http, gateway.url, "alice", TAB)
        async with alice.socket() as events:
            work = await at_work(alice, events, picture(), slow)
            tab = FrontEnd(await context.new_page())
            await tab.open(f"{gateway.url}/?user_id=bob")
            before = tab.watch.errors.copy()
            await tab.page.keyboard.press("q")  # the panel of the queue, with alice's places in it
            colour = a_colour()
            await tab.draw(empty_to_save(colour, prefix=PREFIX))
            run = await tab.press_run()
            assert run.headers["x-comfy-session-user"] == "bob"
            await work.has_suffered_nothing()
            assert await tab.ending(run) == "execution_success"
            assert as_colour(await tab.picture_below_node(run)) == colour
            assert as_colour(await tab.picture_in_queue(run)) == colour
            assert await tab.starts() == [run.prompt_id]
            assert tab.watch.errors - before == {}
