"""Many users at once: the cap holds, everybody is served, and the switch is quick."""

import asyncio
import re
from collections import Counter

import aiohttp

from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture


async def test_a_hundred_users_with_a_thousand_prompts_get_twenty_pods_and_all_are_served(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway
) -> None:
    settings = cloud.settings(
        duty, RUNPOD_MAX_ACTIVE_SESSIONS="20", RUNPOD_MAX_STARTING="0", BUDGET_HOURLY_USD="1000"
    )
    connector = aiohttp.TCPConnector(limit=100)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http,
        start_gateway(**settings) as gateway,
    ):
        people = [Person(http, gateway.url, name=f"user{number}") for number in range(100)]

        async def work(person: Person) -> Counter[int]:
            return Counter([(await person.prompt(picture(seed))).status for seed in range(10)])

        statuses: Counter[int] = sum(await asyncio.gather(*map(work, people)), Counter())
        assert statuses == {200: 1000}

        await eventually(
            lambda: len(gateway.lines_with("verifying -> ready")) == 20, "twenty users are moved", within_s=60
        )
        ready = [await person.is_ready() for person in people]
        assert ready.count(True) == 20
        sources = Counter([(await person.prompt()).headers["X-Comfy-Session-Source"] for person in people])
        assert sources == {"private": 20, "duty": 80}
        assert len(cloud.sim.pods) == 20
        assert len({pod.name for pod in cloud.sim.pods.values()}) == 20

        moves = Counter(
            match[0]
            for line in gateway.lines
            if (match := re.search(r"RunPod session \S+ \w+ -> \w+", line)) is not None
        )
        assert max(moves.values()) == 1, "one line for each transition"
        assert len(moves) == 20 * 5
        assert "Traceback" not in gateway.log
        assert len(gateway.lines_with("stays on duty")) == 80


async def test_traffic_moves_within_a_second_of_the_last_gate(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    cloud.sim.delays = cloud.sim.delays.model_copy(update={"app_ready_s": 0.5, "agent_ready_s": 2.0})
    async with start_gateway(**cloud.settings(duty, RUNPOD_STARTUP_POLL_S="5")) as gateway:
        alice = Person(http, gateway.url)
        for _ in range(5):
            await alice.prompt()
        await eventually(alice.is_ready, "alice is on her pod")
        seen_s = cloud.sim.clock.monotonic()
        [pod] = cloud.sim.pods.values()
        # The agent's answer is the last gate; the first request that it answered carried the lease.
        assert seen_s - pod.lease_times_s[0] < 1.0
