"""A pod that anybody could use is given back, not used."""

import aiohttp

from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually


async def test_a_pod_that_answers_without_the_token_is_ended_and_never_routed(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url)
        for _ in range(5):
            await alice.prompt()
        await eventually(lambda: bool(cloud.sim.living()), "a pod is bought")
        [pod] = cloud.sim.living()
        pod.is_open = True
        await gateway.wait_for_line("answers without the token")
        await eventually(lambda: pod not in cloud.sim.living(), "the open pod is gone")
        assert not gateway.lines_with("booting -> verifying")
