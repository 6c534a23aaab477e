"""What stands where no credentials are given."""

import pytest

from comfy_gateway.core.errors import CloudRefused
from comfy_gateway.core.ports import Candidate, Cloud, PodOrder
from comfy_gateway.service.cloud.no_cloud import NoCloud

CANDIDATE = Candidate("RTX 4090", "SECURE")


async def test_nothing_is_ever_bought_found_or_ended() -> None:
    cloud: Cloud = NoCloud()
    assert await cloud.list_pods() == ()
    assert await cloud.price_per_hour_usd(CANDIDATE) is None
    with pytest.raises(CloudRefused, match="comfy-gw-a-b was not ordered"):
        await cloud.create_pod(PodOrder("comfy-gw-a-b", CANDIDATE, {}))
    with pytest.raises(CloudRefused, match="pod1 cannot be looked up"):
        await cloud.get_pod("pod1")
    with pytest.raises(CloudRefused, match="pod1 cannot be ended"):
        await cloud.terminate_pod("pod1")
    await cloud.aclose()
