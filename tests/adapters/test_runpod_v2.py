"""What the adapter for RunPod's REST API sends, what it reads out of answers, and when it keeps quiet."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfy_gateway.adapters.runpod import RunPodOrder, RunPodV2Cloud
from comfy_gateway.core.errors import (
    CapacityRefused,
    CloudError,
    CloudRefused,
    CloudUnauthorized,
    CloudUnavailable,
)
from comfy_gateway.core.ports import Candidate, PodOrder
from simulators.clock import FakeClock
from simulators.runpod import Fault, RunPodSimulator, serve
from tests.conditions import wait_for
from tests.contract.loopback import answering
from tests.contract.published import faults_of_request

KEY = "rpa_TESTKEY0123456789abcdefghij"
SECRET = "0123456789abcdef" * 4
GPU = "NVIDIA GeForce RTX 4090"
POD: dict[str, Any] = {
    "id": "pod1",
    "name": "comfy-gw-a-b",
    "status": "RUNNING",
    "cost": 0.69,
    "gpu": {"id": GPU, "count": 1},
    "runtime": {"gpus": [{"util": 94}, {"util": 3}]},
    "createdAt": "2026-11-24T04:00:00Z",
}
OFFER: dict[str, Any] = {
    "id": GPU,
    "secure": True,
    "community": True,
    "price": {"secure": 0.69, "community": 0.34},
    "availability": "LOW",
    "dataCenters": [{"id": "EU-RO-1", "name": "Romania", "availability": "LOW"}],
}


def problem(status: int, detail: str, **more: Any) -> web.Response:
    told = {"title": "No", "status": status, "detail": detail} | more
    return web.json_response(told, status=status, content_type="application/problem+json")


@dataclass
class Desk:
    """Takes down every request; what it answers is set by tests, by method and path. A function answers by itself."""

    url: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    offer: Any = field(default_factory=lambda: dict(OFFER))
    made: Callable[[], web.Response] | None = None
    pods: Callable[[], web.Response] | None = None
    pod: Callable[[], web.Response] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        text = await request.read()
        self.asked.append((request.method, request.rel_url.raw_path_qs, json.loads(text) if text else None))
        self.headers.append(dict(request.headers))
        if request.path.startswith("/v2/catalog"):
            return web.json_response(self.offer)
        if request.method == "POST":
            return self.made() if self.made else web.json_response(POD, status=201)
        if request.path == "/v2/pods":
            return self.pods() if self.pods else web.json_response({"pods": [POD]})
        if request.method == "DELETE":
            return web.Response(status=204)
        return self.pod() if self.pod else web.json_response(POD)

    @property
    def orders(self) -> list[dict[str, Any]]:
        """The bodies of all create calls."""
        return [body for method, _, body in self.asked if method == "POST"]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    opened = Desk()
    async with answering(opened.answer) as url:
        opened.url = url
        yield opened


@asynccontextmanager
async def cloud_at(
    api_base: str, defaults: RunPodOrder | None = None, **settings: Any
) -> AsyncIterator[RunPodV2Cloud]:
    cloud = RunPodV2Cloud(
        api_key=KEY,
        api_base=api_base,
        order_defaults=defaults or RunPodOrder(image_name="example/comfyui:1"),
        request_timeout_s=20.0,
        **settings,
    )
    try:
        yield cloud
    finally:
        await cloud.aclose()


def order(candidate: Candidate | None = None, **env: str) -> PodOrder:
    return PodOrder("comfy-gw-a-b", candidate or Candidate(GPU, "SECURE"), env)


# What is sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "defaults",
    [
        RunPodOrder(image_name="example/comfyui:1"),
        RunPodOrder(template_id="tpl1", container_disk_gb=None),
        RunPodOrder(template_id="tpl1", volume_gb=20),
        RunPodOrder(template_id="tpl1", volume_gb=20, network_volume_id="vol1"),
        RunPodOrder(
            image_name="a",
            extra={"allowed_cuda_versions": ["12.8"], "docker_args": "--lowvram", "start_ssh": True},
        ),
    ],
    ids=["image", "template", "volume", "network volume", "extra"],
)
async def test_every_order_is_one_that_the_published_description_allows(
    desk: Desk, defaults: RunPodOrder
) -> None:
    async with cloud_at(desk.url, defaults) as cloud:
        await cloud.create_pod(order(AUTH_TOKEN=SECRET))
    assert [faults_of_request("POST", "/v2/pods", body) for body in desk.orders] == [[]]


async def test_the_body_says_what_was_ordered(desk: Desk) -> None:
    defaults = RunPodOrder(
        image_name="example/comfyui:1",
        template_id="tpl1",
        gpu_count=2,
        volume_gb=20,
        container_disk_gb=60,
        network_volume_id="vol1",
        extra={"allowed_cuda_versions": ["12.8", "12.9"], "docker_args": "--lowvram"},
    )
    env = {"AUTH_TOKEN": SECRET, "NOTE": 'say "hi",\n\\d {{ RUNPOD_SECRET_x }}'}
    async with cloud_at(desk.url, defaults) as cloud:
        assert await cloud.create_pod(order(Candidate(GPU, "COMMUNITY", "EU-RO-1"), **env)) == "pod1"
    assert desk.orders == [
        {
            "name": "comfy-gw-a-b",
            "image": "example/comfyui:1",
            "templateId": "tpl1",
            "gpu": {"id": GPU, "count": 2, "allowedCudaVersions": ["12.8", "12.9"]},
            "cloud": "COMMUNITY",
            "dataCenterIds": ["EU-RO-1"],
            "disk": 60,
            "mounts": {"network": [{"volumeId": "vol1", "path": "/workspace"}]},
            "ports": ["8188/http", "8000/http"],
            "args": "--lowvram",
            "startSsh": False,
            "env": env,
        }
    ]
    [(_, looked_up, _)] = desk.asked[:1]
    assert looked_up == (
        "/v2/catalog/gpus/NVIDIA%20GeForce%20RTX%204090"
        "?include=AVAILABILITY&product=POD&count=2&cloud=COMMUNITY&cudaVersions=12.8%2C12.9"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        PodOrder('a"b', Candidate(GPU, "SECURE"), {}),
        PodOrder("a/b", Candidate(GPU, "SECURE"), {}),
        PodOrder("a", Candidate("../pods", "SECURE"), {}),
        PodOrder("a", Candidate(GPU, "SECURE", "EU?x=1"), {}),
        PodOrder("a", Candidate(GPU, "MOON"), {}),
        PodOrder("a", Candidate(GPU, "SECURE"), {"a-b": "c"}),
        PodOrder("a", Candidate(GPU, "SECURE"), {f"A{n}": "c" for n in range(51)}),
    ],
)
async def test_what_cannot_be_a_name_or_an_id_is_never_sent(desk: Desk, wrong: PodOrder) -> None:
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudRefused):
            await cloud.create_pod(wrong)
    assert desk.asked == []


@pytest.mark.parametrize("pod_id", ["", "a/b", "..", "a?b", "ä", "a b"])
async def test_what_is_no_pod_id_is_never_sent(desk: Desk, pod_id: str) -> None:
    async with cloud_at(desk.url) as cloud:
        for call in (cloud.get_pod, cloud.terminate_pod):
            with pytest.raises(CloudRefused):
                await call(pod_id)
        with pytest.raises(CloudRefused):
            await cloud.price_per_hour_usd(Candidate(f"../{pod_id}", "SECURE"))
    assert desk.asked == []


@pytest.mark.parametrize(
    ("defaults", "name"),
    [
        ({"extra": {"country_code": "RO"}}, "country_code"),
        ({"extra": {"min_vcpu_count": 8}}, "min_vcpu_count"),
        ({"extra": {"min_download": 100}}, "min_download"),
        ({"extra": {"support_public_ip": True}}, "support_public_ip"),
        ({"volume_gb": 5}, "10 GB"),
    ],
)
def test_what_v2_cannot_be_told_is_refused_at_the_start(defaults: dict[str, Any], name: str) -> None:
    given = RunPodOrder(image_name="a", **defaults)
    with pytest.raises(ValueError, match=name):
        RunPodV2Cloud(api_key=KEY, api_base="http://x", order_defaults=given, request_timeout_s=1)


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "line\nbreak"])
def test_a_key_that_cannot_be_one_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        RunPodV2Cloud(
            api_key=key, api_base="http://x", order_defaults=RunPodOrder(image_name="a"), request_timeout_s=1
        )


async def test_the_key_goes_in_the_header_whatever_the_persons_netrc_says(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with cloud_at(f"{desk.url}/") as cloud:
        await cloud.list_pods()
    assert desk.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "python" not in desk.headers[0]["User-Agent"].lower()


async def test_a_proxy_of_the_environment_is_used_for_other_machines(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", desk.url)
    async with cloud_at("http://api.example") as cloud:
        assert len(await cloud.list_pods()) == 1
    assert desk.headers[0]["Host"] == "api.example"


# Stock and price --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "data_center", "is_asked_for"),
    [
        ({}, None, True),
        ({}, "EU-RO-1", True),
        ({}, "US-TX-3", False),
        ({"availability": "NONE"}, None, False),
        ({"availability": "NONE", "dataCenters": None}, "EU-RO-1", False),
        ({"dataCenters": [{"id": "EU-RO-1", "availability": "NONE"}, None]}, "EU-RO-1", False),
        ({"availability": None, "dataCenters": None}, "EU-RO-1", True),
    ],
)
async def test_what_is_sold_out_is_not_asked_for(
    desk: Desk, offer: dict[str, Any], data_center: str | None, is_asked_for: bool
) -> None:
    desk.offer |= offer
    async with cloud_at(desk.url) as cloud:
        if is_asked_for:
            await cloud.create_pod(order(Candidate(GPU, "SECURE", data_center)))
        else:
            with pytest.raises(CapacityRefused, match="none in stock"):
                await cloud.create_pod(order(Candidate(GPU, "SECURE", data_center)))
    assert len(desk.orders) == int(is_asked_for)


async def test_the_other_cloud_is_asked_only_when_the_first_certainly_has_none(desk: Desk) -> None:
    answers = [problem(400, "There are no instances currently available"), problem(500, "oops")]
    desk.made = lambda: answers.pop(0)
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudUnavailable):
            await cloud.create_pod(order(Candidate(GPU, "ALL")))
        assert [body["cloud"] for body in desk.orders] == ["SECURE", "COMMUNITY"]
        answers = [problem(500, "oops")]
        with pytest.raises(CloudUnavailable):
            await cloud.create_pod(order(Candidate(GPU, "ALL")))
        assert len(desk.orders) == 3
        desk.made = lambda: problem(400, "There are no instances currently available")
        with pytest.raises(CapacityRefused):
            await cloud.create_pod(order(Candidate(GPU, "ALL")))


async def test_prices_are_kept_an_hour_and_stock_for_seconds(desk: Desk) -> None:
    now_s = 0.0
    candidate = Candidate(GPU, "SECURE")
    async with cloud_at(desk.url, monotonic=lambda: now_s) as cloud:

        async def looked_up(what: Callable[[], Awaitable[Any]]) -> int:
            before = len(desk.asked)
            await what()
            return sum("/catalog/" in path for _, path, _ in desk.asked[before:])

        assert await looked_up(lambda: cloud.price_per_hour_usd(candidate)) == 1
        assert await looked_up(lambda: cloud.create_pod(order(candidate))) == 0
        now_s = 11.0
        assert await looked_up(lambda: cloud.price_per_hour_usd(candidate)) == 0
        assert await looked_up(lambda: cloud.create_pod(order(candidate))) == 1
        now_s = 3700.0
        assert await looked_up(lambda: cloud.price_per_hour_usd(candidate)) == 1
        desk.offer["secure"] = False
        now_s = 7400.0
        assert await cloud.price_per_hour_usd(candidate) is None
        now_s += 61
        assert await looked_up(lambda: cloud.price_per_hour_usd(candidate)) == 1


async def test_stock_that_cannot_be_seen_buys_nothing(desk: Desk) -> None:
    desk.offer = []
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudRefused, match="stock"):
            await cloud.create_pod(order())
    assert desk.orders == []


# What is read out of answers --------------------------------------------------------------------------------


async def test_cost_age_and_load_of_a_pod(desk: Desk) -> None:
    async with cloud_at(desk.url) as cloud:
        pod = await cloud.get_pod("pod1")
        assert pod is not None
        assert (pod.cost_per_hour_usd, pod.gpu_type) == (0.69, GPU)
        assert pod.created_at == datetime(2026, 11, 24, 4, tzinfo=UTC)
        assert pod.gpu_percents == (94.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": "PROVISIONING", "cost": 0}, (True, False, None, None)),
        ({"status": "STARTING", "cost": 0.69}, (True, False, 0.69, None)),
        ({"status": "EXITED", "cost": 0}, (False, False, 0.0, None)),
        ({"status": "ERROR", "cost": 0}, (False, False, 0.0, None)),
        ({"status": "PAUSED FOR TEA"}, (True, False, 0.69, None)),
        ({"runtime": None}, (True, True, 0.69, None)),
        ({"runtime": {"gpus": [{"util": 5}, {}]}}, (True, True, 0.69, None)),
        ({"runtime": {"gpus": []}}, (True, True, 0.69, None)),
        ({"runtime": {"gpus": [None]}}, (True, True, 0.69, None)),
    ],
)
async def test_what_the_status_means(desk: Desk, changes: dict[str, Any], told: tuple[Any, ...]) -> None:
    desk.pods = lambda: web.json_response({"pods": [POD | changes]})
    async with cloud_at(desk.url) as cloud:
        [pod] = await cloud.list_pods()
    assert (pod.is_running, pod.has_machine, pod.cost_per_hour_usd, pod.gpu_percents) == told


@pytest.mark.parametrize("moment", [None, 5, "soon", "2026-11-24T04:00:00"])
async def test_an_age_that_is_none_is_none(desk: Desk, moment: Any) -> None:
    desk.pod = lambda: web.json_response(POD | {"createdAt": moment, "name": None, "gpu": None})
    async with cloud_at(desk.url) as cloud:
        pod = await cloud.get_pod("pod1")
    assert pod is not None
    assert (pod.created_at, pod.name, pod.gpu_type) == (None, "", None)


async def test_a_terminated_pod_is_none(desk: Desk) -> None:
    gone = POD | {"status": "TERMINATED"}
    desk.pod = lambda: web.json_response(gone)
    desk.pods = lambda: web.json_response({"pods": [gone, POD]})
    async with cloud_at(desk.url) as cloud:
        assert await cloud.get_pod("pod1") is None
        assert len(await cloud.list_pods()) == 1


async def test_another_pod_than_the_one_asked_for_is_no_answer(desk: Desk) -> None:
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudUnavailable, match="another pod"):
            await cloud.get_pod("pod2")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=404, text="<h1>not found</h1>", content_type="text/html"),
        lambda: web.json_response({"message": "no Route matched with those values"}, status=404),
        lambda: web.json_response({"status": 404, "detail": None}, status=404),
        lambda: web.json_response({"title": "x", "status": 200, "detail": "x"}, status=404),
    ],
)
async def test_only_runpods_own_404_means_that_a_pod_is_gone(
    desk: Desk, answer: Callable[[], web.Response]
) -> None:
    desk.pod = answer
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudUnavailable):
            await cloud.get_pod("pod1")
        desk.pod = lambda: problem(404, "pod not found")
        assert await cloud.get_pod("pod1") is None


@pytest.mark.parametrize(
    ("status", "detail", "meaning"),
    [
        (400, "the template is for serverless", CloudRefused),
        (400, "Something went wrong. Please try again later or contact support.", CloudUnavailable),
        (402, "insufficient balance", CloudRefused),
        (403, "your account has no access to this pool", CloudRefused),
        (403, "Unauthorized", CloudUnauthorized),
        (404, "template not found", CloudRefused),
        (422, "Request validation failed.", CloudRefused),
        (500, "This machine does not have the resources to deploy your pod. Try another", CapacityRefused),
        (500, "internal", CloudUnavailable),
        (410, "gone", CloudUnavailable),
    ],
)
async def test_what_a_refused_order_means(
    desk: Desk, status: int, detail: str, meaning: type[CloudError]
) -> None:
    desk.made = lambda: problem(status, detail, errors=[f"$.env: '{SECRET}' is too long", 5])
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudError) as caught:
            await cloud.create_pod(order(AUTH_TOKEN=SECRET))
    assert type(caught.value) is meaning
    assert SECRET not in str(caught.value)
    assert len(desk.orders) == 1


async def test_a_pod_of_a_cluster_is_not_ours_to_end() -> None:
    async def answer(_request: web.Request) -> web.Response:
        return problem(409, "Pod belongs to a cluster")

    async with answering(answer) as url, cloud_at(url) as cloud:
        with pytest.raises(CloudRefused, match="cluster"):
            await cloud.terminate_pod("pod1")


async def test_a_key_without_the_right_to_look_is_said(desk: Desk) -> None:
    desk.pods = lambda: problem(403, "access denied")
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudUnauthorized, match="access denied"):
            await cloud.list_pods()


# Keeping quiet ----------------------------------------------------------------------------------------------


@dataclass
class Weather:
    """The simulated account, and a clock that only this test's cloud goes by."""

    sim: RunPodSimulator
    cloud: RunPodV2Cloud
    slept: list[float]


@pytest.fixture
async def weather() -> AsyncIterator[Weather]:
    sim = RunPodSimulator(api_key=KEY)
    clock, slept = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    async with (
        serve(sim) as served,
        cloud_at(served.api_base, monotonic=clock.monotonic, sleep=sleep) as cloud,
    ):
        yield Weather(sim, cloud, slept)


async def test_a_look_is_repeated_when_runpod_allows_it(weather: Weather) -> None:
    weather.sim.faults.add(Fault(operation="list", kind="rate_limited", retry_after_s=7, times=2))
    assert await weather.cloud.list_pods() == []
    assert weather.slept == [7, 7]
    assert weather.sim.calls["list"] == 3


async def test_an_end_is_repeated_when_runpod_allows_it(weather: Weather) -> None:
    pod_id = await weather.cloud.create_pod(order())
    weather.sim.faults.add(Fault(operation="terminate", kind="rate_limited", retry_after_s=0))
    await weather.cloud.terminate_pod(pod_id)
    assert (weather.slept, weather.sim.living()) == ([1.0], [])


async def test_a_create_is_not_repeated_and_the_next_call_waits(weather: Weather) -> None:
    weather.sim.faults.add(Fault(operation="create", kind="rate_limited", retry_after_s=12))
    with pytest.raises(CloudUnavailable):
        await weather.cloud.create_pod(order())
    assert (weather.sim.calls["create"], weather.slept) == (1, [])
    assert await weather.cloud.list_pods() == []
    assert weather.slept == [12]


async def test_nothing_is_sent_while_runpod_asks_for_quiet_longer_than_anybody_waits(
    weather: Weather,
) -> None:
    weather.sim.faults.add(Fault(operation="list", kind="rate_limited", retry_after_s=21))
    for _ in range(3):
        with pytest.raises(CloudUnavailable, match="429"):
            await weather.cloud.list_pods()
    with pytest.raises(CloudRefused, match="429"):
        await weather.cloud.create_pod(order())
    assert weather.sim.calls == {"list": 1}


@pytest.mark.parametrize("header", [None, "soon", "-5", "٣"])
async def test_a_429_that_does_not_say_how_long_is_waited_out_for_seconds(header: str | None) -> None:
    headers = {} if header is None or not header.isascii() else {"Retry-After": header}
    answers = [web.Response(status=429, headers=headers), web.json_response({"pods": []})]

    async def answer(_request: web.Request) -> web.Response:
        return answers.pop(0)

    clock, slept = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    async with answering(answer) as url, cloud_at(url, monotonic=clock.monotonic, sleep=sleep) as cloud:
        assert await cloud.list_pods() == []
    assert slept == [5.0]


async def test_a_cloud_that_is_closed_breaks_off_what_is_under_way(weather: Weather) -> None:
    weather.sim.faults.add(Fault(operation="list", kind="hang"))
    looking = asyncio.ensure_future(weather.cloud.list_pods())
    await wait_for(lambda: weather.sim.calls["list"], "the call to arrive")
    async with asyncio.timeout(10):
        await weather.cloud.aclose()
        with pytest.raises(CloudUnavailable):
            await looking
