"""People take turns on a shared ComfyUI: a real gateway in front of one."""

from typing import Any

import aiohttp

from tests.conditions import wait_for
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, picture


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
