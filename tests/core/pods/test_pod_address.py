"""Where a pod's ComfyUI and agent are reached."""

import pytest

from comfy_gateway.core.pods.pod_address import PodAddresses
from comfy_gateway.core.requests.upstream import Upstream

RUNPOD = "https://{pod_id}-{port}.proxy.runpod.net"


def test_runpods_own_addresses() -> None:
    addresses = PodAddresses(RUNPOD, 8188, RUNPOD, 8000, "/metrics")
    assert addresses.upstream("abc") == Upstream("https", "abc-8188.proxy.runpod.net", 443)
    assert addresses.agent_url("abc") == "https://abc-8000.proxy.runpod.net/metrics"


@pytest.mark.parametrize(
    ("template", "url"),
    [
        (RUNPOD + "/", "https://abc-8000.proxy.runpod.net/metrics"),
        ("http://127.0.0.1:9/{pod_id}/{port}", "http://127.0.0.1:9/abc/8000"),
        ("http://127.0.0.1:9/{pod_id}/{port}/agent", "http://127.0.0.1:9/abc/8000/agent"),
    ],
    ids=["bare slash", "a path is used as it is", "a longer path too"],
)
def test_the_telemetry_path_follows_a_template_without_one(template: str, url: str) -> None:
    assert PodAddresses(RUNPOD, 8188, template, 8000, "/metrics").agent_url("abc") == url


def test_a_path_prefix_of_the_proxy_is_kept() -> None:
    addresses = PodAddresses("http://127.0.0.1:9/proxy/{pod_id}/{port}/", 8188, RUNPOD, 8000, "/metrics")
    assert addresses.upstream("abc") == Upstream("http", "127.0.0.1", 9, "/proxy/abc/8188")


def test_a_template_that_makes_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="http:// or https://"):
        PodAddresses("{pod_id}:{port}", 8188, RUNPOD, 8000, "/metrics").upstream("abc")
