"""What the simulated account may do: calls a minute, dollars an hour, and for how long its money lasts."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.clock import FakeClock
from simulators.runpod import (
    GPU_TYPES,
    AccountChange,
    NetworkVolume,
    PodOrder,
    RefusedError,
    RunPodSimulator,
    Served,
    SimPod,
    serve,
)
from simulators.runpod.account import TokenBucket

KEY = "test-key"
LIST = {"query": "query { myself { pods { id } } }"}
H100 = GPU_TYPES[-1]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> RunPodSimulator:
    return RunPodSimulator(
        api_key=KEY, clock=clock, network_volumes=[NetworkVolume("vol1", "models", 100, "EU-SE-1")]
    )


@pytest.fixture
async def served(cloud: RunPodSimulator) -> AsyncIterator[Served]:
    async with serve(cloud) as served:
        yield served


def rent(cloud: RunPodSimulator, **wishes: Any) -> SimPod:
    """A pod for 3.99 dollars an hour."""
    given: dict[str, Any] = {"name": "comfy-gw-ann-1", "gpu": H100, "cloud_type": "SECURE"} | wishes
    return cloud.create(PodOrder(**given))


def bound(cloud: RunPodSimulator, **bounds: Any) -> None:
    cloud.change_account(AccountChange(**bounds))


async def ask(served: Served, api: str, key: str = KEY) -> aiohttp.ClientResponse:
    """A list by one of the two APIs."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        call = (
            http.get(f"{served.api_base}/v2/pods")
            if api == "v2"
            else http.post(f"{served.api_base}/graphql", json=LIST)
        )
        async with call as response:
            await response.read()
            return response


@pytest.mark.parametrize("api", ["graphql", "v2"])
async def test_beyond_a_minutes_calls_both_apis_answer_429_until_retry_after(
    served: Served, cloud: RunPodSimulator, clock: FakeClock, api: str
) -> None:
    bound(cloud, calls_per_minute=6)
    assert [(await ask(served, api)).status for _ in range(7)] == [200] * 6 + [429]
    refused = await ask(served, api)
    assert refused.headers["Retry-After"] == "10"
    assert refused.headers["RateLimit-Policy"] == '"minute";q=6;w=60'
    assert cloud.calls["rate_limited"] == 2
    clock.advance(float(refused.headers["Retry-After"]))
    assert (await ask(served, api)).status == 200
    assert (await ask(served, api)).status == 429
    assert (await ask(served, api, key="guess")).status == 401
    bound(cloud, calls_per_minute=None)
    assert (await ask(served, api)).status == 200


@given(
    per_minute=st.integers(1, 600),
    waits_s=st.lists(st.floats(0, 90), min_size=1, max_size=200),
)
def test_whoever_waits_as_long_as_told_is_let_through_and_nobody_gets_more(
    per_minute: int, waits_s: list[float]
) -> None:
    bucket = TokenBucket(per_minute, 0.0)
    now_s = 0.0
    for passed, wait_s in enumerate(waits_s, start=1):
        now_s += wait_s
        told_s = bucket.take(now_s)
        if told_s is not None:
            assert 0 < told_s <= 60.0 / per_minute + 1e-6
            now_s += told_s
            assert bucket.take(now_s) is None
        assert passed <= per_minute * (1 + now_s / 60.0) + 1e-3


def test_an_hour_of_a_pod_must_be_left_to_rent_it(cloud: RunPodSimulator) -> None:
    bound(cloud, balance_usd=3.98)
    with pytest.raises(RefusedError, match="balance is too low") as refused:
        rent(cloud)
    assert refused.value.status == 402
    bound(cloud, balance_usd=3.99)
    rent(cloud)


def test_without_money_pods_are_terminated_and_those_with_a_volume_stopped(
    cloud: RunPodSimulator, clock: FakeClock
) -> None:
    bound(cloud, balance_usd=8.0)
    plain, with_volume = rent(cloud), rent(cloud, network_volume_id="vol1")
    clock.advance(3600)
    assert len(cloud.living()) == 2
    clock.advance(300)
    assert cloud.balance_usd() <= 0
    assert cloud.living() == [with_volume]
    assert plain.events[-1].status_change.startswith("Terminated by Runpod: Insufficient balance")
    assert with_volume.events[-1].status_change.startswith("Exited by Runpod: Insufficient balance")
    left_usd = cloud.balance_usd()
    clock.advance(24 * 3600)
    assert cloud.balance_usd() == left_usd
    with pytest.raises(RefusedError):
        rent(cloud)
    bound(cloud, balance_usd=None)
    rent(cloud)


def test_a_pod_that_was_there_before_the_bound_ends_by_it(cloud: RunPodSimulator, clock: FakeClock) -> None:
    rent(cloud)
    clock.advance(3600)
    bound(cloud, balance_usd=1.0)
    assert cloud.balance_usd() == pytest.approx(1.0)
    clock.advance(1200)
    assert cloud.living() == []


def test_the_account_spends_no_more_in_an_hour_than_its_cap(cloud: RunPodSimulator) -> None:
    bound(cloud, spend_cap_usd_per_hour=8.0)
    first = rent(cloud)
    rent(cloud)
    with pytest.raises(RefusedError, match="spend limit") as refused:
        rent(cloud)
    assert refused.value.status == 400
    cloud.terminate(first.id)
    rent(cloud)


async def test_another_process_bounds_the_account_by_the_admin_api(
    served: Served, cloud: RunPodSimulator
) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{served.admin_base}/account", json={"balance_usd": 5}) as told:
            assert await told.json() == {"balance_usd": 5.0}
        async with http.post(f"{served.admin_base}/account", json={"balance": 5}) as refused:
            assert refused.status == 422
    with pytest.raises(RefusedError):
        rent(cloud, gpu_count=2)


def test_ids_follow_from_the_seed(clock: FakeClock) -> None:
    ids = [
        [rent(RunPodSimulator(seed=seed, clock=clock), name=str(number)).id for number in range(1)]
        for seed in (1, 1, 2)
    ]
    assert ids[0] == ids[1] != ids[2]
    cloud = RunPodSimulator(seed=1, clock=clock)
    assert len({rent(cloud).id for _ in range(100)}) == 100
