"""People take turns on a shared ComfyUI: a real gateway in front of one."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.conditions import wait_for
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, picture


async def test_who_queued_twenty_does_not_keep_a_newcomer_waiting(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        duty.sim.mood.paused = True

        async def queue(user: str, count: int) -> list[str]:
            ids = []
            for seed in range(count):
                body: dict[str, Any] = {"prompt": picture(seed), "prompt_id": f"{user}-{seed:02}"}
                headers = {"X-Comfy-User": user}
                async with http.post(f"{gateway.url}/prompt", json=body, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    told = await answer.json()
                    assert told["number"] == len(duty.sim.accepted), "the gateway's own, not the server's"
                    ids.append(told["prompt_id"])
            return ids

        of_a = await queue("alice", 20)
        of_b = await queue("bob", 2)
        async with http.get(f"{gateway.url}/queue", headers={"X-Comfy-User": "bob"}) as answer:
            shown = await answer.json()
        assert [item[0] for item in shown["queue_pending"]] == list(range(2, 23))
        duty.sim.mood.paused = False

        async def ended() -> list[str]:
            async with http.get(f"{duty.url.rstrip('/')}/history") as answer:
                return list(await answer.json())

        async def all_ended() -> bool:
            return len(await ended()) == 22

        await wait_for(all_ended, "all to end")
        order = await ended()
        assert [one for one in order if one in of_a] == of_a
        assert [one for one in order if one in of_b] == of_b
        assert sum(one in of_a for one in order[: order.index(of_b[1])]) <= 5


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_fifty_users_finish_alike_in_a_minute_of_backlog(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Jain's index of finished prompts, over every window of 60 s in 90 s of backlog: at least 0.95.

    Prompts take 0.1 s, so that a minute holds about ten of each user; of prompts that take 1 s a minute holds 60
    for 50 users, and no order whatever gives more than 0.9.
    """
    users = [f"user-{number:02}" for number in range(50)]
    greedy = set(users[:5])
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        duty.sim.mood.paused = True
        people = {name: Person(http, gateway.url, name) for name in users}
        ids: dict[str, list[str]] = {name: [] for name in users}
        wishes = [name for name in users for _ in range(60 if name in greedy else 22)]
        random.Random(1).shuffle(wishes)
        for seed, name in enumerate(wishes):
            answer = await people[name].prompt(picture(seed, sleep_s=0.1, steps=1))
            assert answer.status == 200, await answer.text()
            ids[name].append((await answer.json())["prompt_id"])
        owner_of = {prompt_id: name for name, own in ids.items() for prompt_id in own}
        duty.sim.mood.paused = False
        seen: dict[str, float] = {}
        order: list[str] = []
        began_s = time.monotonic()
        while time.monotonic() - began_s < 90:
            async with http.get(f"{duty.url.rstrip('/')}/history") as answer:
                now_s = time.monotonic() - began_s
                for prompt_id in await answer.json():
                    if seen.setdefault(prompt_id, now_s) == now_s:
                        order.append(prompt_id)
            left = Counter(owner_of.values()) - Counter(owner_of[one] for one in seen)
            if len(left) < len(users):
                break  # somebody has nothing left: no backlog of everybody any more
            await asyncio.sleep(0.25)
        lasted_s = max(seen.values())
        assert lasted_s > 60, f"the backlog of everybody lasted {lasted_s:.0f} s only"
        for start_s in range(0, int(lasted_s) - 59, 5):
            counts = Counter(owner_of[one] for one, at_s in seen.items() if start_s <= at_s < start_s + 60)
            finished = [counts[name] for name in users]
            index = sum(finished) ** 2 / (len(users) * sum(one * one for one in finished))
            print(f"from {start_s} s: {sum(finished)} prompts, Jain's index {index:.3f}")
            assert index >= 0.95
        for name, own in ids.items():
            ran = [one for one in order if owner_of[one] == name]
            assert ran == own[: len(ran)], f"the order of {name} was changed"
