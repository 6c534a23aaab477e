"""Two users before one simulated ComfyUI: what one tries against the other's work."""

import itertools
from typing import Any

import aiohttp

from tests.e2e.conftest import StartGateway
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
from tests.e2e.world import Duty, picture

SEEDS = itertools.count(1)


def slow() -> dict[str, Any]:
    """A workflow of a second and a half."""
    return picture(next(SEEDS), sleep_s=1.5)


async def test_in_full_nothing_of_alice_is_seen_or_touched_and_bob_works_as_if_alone(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url, ISOLATION="full") as gateway:
        alice = Guest(http, gateway.url, "alice", TAB)
        bob = Guest(http, gateway.url, "bob", TAB)
        async with alice.socket() as events:
            work = await at_work(alice, events, picture(4_711), slow)

            async def attack() -> None:
                await try_to_see(bob, work)
                await try_to_touch(bob, work)
                await try_to_use(bob, work)
                await work.has_suffered_nothing()

            heard = await listen_in(bob, attack)
            assert {message["type"] for message in heard} == {"status"}

        await an_identical_prompt(bob, work)
        await inputs_are_each_ones_own(alice, bob, "a.png")
        await homes_are_each_ones_own(alice, bob, "a")


async def test_with_actions_everything_is_seen_and_nothing_of_alice_is_touched(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        alice, bob = (Guest(http, gateway.url, name, TAB) for name in ("alice", "bob"))
        async with alice.socket() as events:
            work = await at_work(alice, events, picture(4_712), slow)
            assert [item[1] for item in await bob.queue()] == work.slow
            assert work.done in await bob.read("/history")
            assert (await bob.get(f"/view?{work.view}")).status == 200
            own = await bob.submit(picture(4_713))
            await try_to_touch(bob, work)
            assert own not in {item[1] for item in await bob.queue()}
            await work.has_suffered_nothing()
        # What is alice's she may stop and clear herself.
        mine = await alice.submit(slow())
        assert (await alice.post("/queue", {"delete": [mine]})).status == 200
        assert (await alice.post("/interrupt", {})).status == 200
        assert (await alice.post("/history", {"clear": True})).status == 200
        assert not work.ids & (await alice.read("/history")).keys()
        # Without a word of a proxy a request of this machine is an operator's.
        async with http.post(f"{gateway.url}/free", json={}, headers={"X-Comfy-User": "bob"}) as answer:
            assert answer.status == 200
