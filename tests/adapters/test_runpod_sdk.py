"""What the SDK really sends for us, and that nothing unsafe is ever sent.

The server here only writes down what arrives; graphql-core, the reference parser, says what it means.
"""

import asyncio
import importlib
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphql
import pytest
from aiohttp import web

from comfy_gateway.adapters.runpod import RunPodOrder, RunPodSdkCloud
from comfy_gateway.adapters.runpod.binding import is_loopback
from comfy_gateway.adapters.runpod.pasted import checked_env
from comfy_gateway.adapters.runpod.refusals import scrubbed
from comfy_gateway.core.errors import CapacityRefused, CloudRefused, CloudUnavailable
from comfy_gateway.core.ports import Candidate, PodOrder
from simulators.runpod import Fault, RunPodSimulator, serve
from tests.contract.loopback import answering, saying

KEY = "rpa_TESTKEY0123456789abcdefghij"
SECRET = "0123456789abcdef" * 4
GPU = "NVIDIA GeForce RTX 4090"
CANDIDATE = Candidate(GPU, "SECURE", "EU-RO-1")
DEFAULTS = RunPodOrder(image_name="registry.example/team/comfyui:1.2@sha256:abc", template_id="tpl1")

ANSWER: dict[str, Any] = {
    "data": {
        "gpuTypes": [{"id": GPU, "securePrice": 1.0, "communityPrice": 0.5}],
        "podFindAndDeployOnDemand": {"id": "pod1"},
        "myself": {"pods": [], "networkVolumes": []},
        "pod": None,
        "podTerminate": None,
    }
}


def only_operation(text: str) -> graphql.OperationDefinitionNode:
    """The one definition of a query, as the reference parser reads it."""
    (operation,) = graphql.parse(text).definitions
    assert isinstance(operation, graphql.OperationDefinitionNode)
    return operation


@dataclass
class Desk:
    """Takes down every request and answers what an honest account would."""

    url: str = ""
    queries: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/graphql"
        self.headers.append(dict(request.headers))
        self.queries.append(json.loads(await request.read())["query"])
        return web.json_response(ANSWER)

    @property
    def mutation(self) -> graphql.FieldNode:
        """The one field of the one mutation that arrived. Fails when there is anything beside it."""
        (text,) = [query for query in self.queries if query.lstrip().startswith("mutation")]
        operation = only_operation(text)
        (selected,) = operation.selection_set.selections
        assert isinstance(selected, graphql.FieldNode)
        return selected

    @property
    def mutation_input(self) -> dict[str, Any]:
        """The arguments of that mutation, read as GraphQL reads them."""
        (argument,) = self.mutation.arguments or ()
        value: dict[str, Any] = graphql.value_from_ast_untyped(argument.value)
        return value


@asynccontextmanager
async def desk_opened() -> AsyncIterator[Desk]:
    desk = Desk()
    async with answering(desk.answer) as url:
        desk.url = url
        yield desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with desk_opened() as opened:
        yield opened


@asynccontextmanager
async def cloud_at(
    api_base: str, defaults: RunPodOrder = DEFAULTS, **settings: Any
) -> AsyncIterator[RunPodSdkCloud]:
    cloud = RunPodSdkCloud(
        api_key=KEY, api_base=api_base, order_defaults=defaults, request_timeout_s=20.0, **settings
    )
    try:
        yield cloud
    finally:
        await cloud.aclose()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The binding writes these; have them put back."""
    for name in ("RUNPOD_API_BASE_URL", "NETRC", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")


async def create(desk: Desk, defaults: RunPodOrder = DEFAULTS, **changes: Any) -> str:
    given: dict[str, Any] = {"name": "comfy-gw-a-b", "candidate": CANDIDATE, "env": {}} | changes
    async with cloud_at(desk.url, defaults) as cloud:
        return await cloud.create_pod(PodOrder(**given))


async def test_the_mutation_says_what_was_ordered(desk: Desk) -> None:
    defaults = RunPodOrder(
        image_name="example/comfyui:1",
        template_id="tpl1",
        gpu_count=2,
        volume_gb=20,
        container_disk_gb=60,
        network_volume_id="vol1",
        extra={
            "min_vcpu_count": 8,
            "allowed_cuda_versions": ["12.8", "12.9"],
            "country_code": "RO",
            "docker_args": "--lowvram",
        },
    )
    assert await create(desk, defaults, env={"AUTH_TOKEN": SECRET}) == "pod1"
    assert desk.mutation.name.value == "podFindAndDeployOnDemand"
    assert desk.mutation_input == {
        "name": "comfy-gw-a-b",
        "imageName": "example/comfyui:1",
        "templateId": "tpl1",
        "cloudType": "SECURE",
        "gpuTypeId": GPU,
        "gpuCount": 2,
        "volumeInGb": 20,
        "containerDiskInGb": 60,
        "networkVolumeId": "vol1",
        "volumeMountPath": "/workspace",
        "ports": "8188/http,8000/http",
        "dataCenterId": "EU-RO-1",
        "countryCode": "RO",
        "env": [{"key": "AUTH_TOKEN", "value": SECRET}],
        "supportPublicIp": False,
        "minVcpuCount": 8,
        "minMemoryInGb": 1,
        "allowedCudaVersions": ["12.8", "12.9"],
        "dockerArgs": "--lowvram",
    }


async def test_ssh_is_open_only_where_the_extra_payload_asks_for_it(desk: Desk) -> None:
    await create(desk, RunPodOrder(image_name="i", extra={"start_ssh": True, "support_public_ip": True}))
    assert desk.mutation_input["startSsh"] is True
    assert desk.mutation_input["supportPublicIp"] is True


async def test_the_extra_payload_wins_over_settings_and_candidate(desk: Desk) -> None:
    extra = {"cloud_type": "COMMUNITY", "data_center_id": "US-TX-3", "gpu_count": 4, "image_name": "other:2"}
    defaults = RunPodOrder(image_name="i", gpu_count=1, extra=extra)
    await create(desk, defaults)
    sent = desk.mutation_input
    assert (sent["cloudType"], sent["dataCenterId"]) == ("COMMUNITY", "US-TX-3")
    assert (sent["gpuCount"], sent["imageName"]) == (4, "other:2")
    async with cloud_at(desk.url, defaults) as cloud:
        assert await cloud.price_per_hour_usd(CANDIDATE) == 4 * 0.5


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        "",
        " ",
        "{{ RUNPOD_SECRET_hf_token }}",
        "https://x.example/a?b=c&d=%22#e",
        "it's",
        "}], name: 1 }) { id } } # ".replace('"', ""),
        "$HOME ${x} `y` $(z)",
        "a, b: [c] {d} @e |f ...g",
        "ünï ✓ 日本",
        "%s {0} {env}",
        "# comment",
    ],
)
async def test_an_env_value_arrives_exactly_or_not_at_all(desk: Desk, value: str) -> None:
    await create(desk, env={"VALUE": value, "_AFTER_1": "x"})
    assert desk.mutation_input["env"] == [
        {"key": "VALUE", "value": value},
        {"key": "_AFTER_1", "value": "x"},
    ]


CLOSES_THE_QUERY = 'x" }) { id } podTerminate(input: { podId: "victim'

HOSTILE = [
    CLOSES_THE_QUERY,
    'x"',
    '"""',
    "x\\",
    "x\\u0022",
    "C:\\d",
    "two\nlines",
    "x\r",
    "x\x00",
    "x\u2028y",
    "x\x7f",
    "\ud800",
]


@pytest.mark.parametrize("value", [*HOSTILE, '{"json": 1}', "x" * 20_000], ids=ascii)
async def test_an_env_value_that_cannot_be_pasted_is_refused_by_its_name(desk: Desk, value: str) -> None:
    with pytest.raises(CloudRefused, match="TRICKY") as caught:
        await create(desk, env={"GOOD": SECRET, "TRICKY": f"{SECRET}{value}"})
    assert desk.queries == []
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["", "lower", "1A", "A-B", "A B", 'A"', "A\n", "Ä", *HOSTILE], ids=ascii)
async def test_an_env_name_that_cannot_be_pasted_is_refused(desk: Desk, name: str) -> None:
    with pytest.raises(CloudRefused):
        await create(desk, env={name: "x"})
    assert desk.queries == []


async def test_more_variables_than_the_cloud_takes_are_refused(desk: Desk) -> None:
    await create(desk, env={f"V{index}": "x" for index in range(50)})
    desk.queries.clear()
    with pytest.raises(CloudRefused, match="51"):
        await create(desk, env={f"V{index}": "x" for index in range(51)})
    assert desk.queries == []


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "a_b", "a.b", "x" * 192, "ä", *HOSTILE], ids=ascii)
async def test_a_pod_name_that_is_not_ours_to_give_is_refused(desk: Desk, name: str) -> None:
    with pytest.raises(CloudRefused):
        await create(desk, name=name)
    assert desk.queries == []


@pytest.mark.parametrize(
    "candidate",
    [
        *(Candidate(text, "SECURE") for text in ["", " ", *HOSTILE]),
        *(Candidate(GPU, text) for text in ["", "secure", "ANY", "SECURE, name: 1", *HOSTILE]),
        *(Candidate(GPU, "SECURE", text) for text in [" ", "EU RO", *HOSTILE]),
    ],
    ids=ascii,
)
async def test_a_candidate_that_cannot_be_pasted_is_refused(desk: Desk, candidate: Candidate) -> None:
    with pytest.raises(CloudRefused):
        await create(desk, candidate=candidate)
    assert desk.queries == []


@pytest.mark.parametrize("candidate", [Candidate('x"', "SECURE"), Candidate(GPU, "ANY")])
async def test_a_price_is_asked_only_for_a_candidate_that_can_be(desk: Desk, candidate: Candidate) -> None:
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudRefused):
            await cloud.price_per_hour_usd(candidate)
    assert desk.queries == []


@pytest.mark.parametrize("pod_id", ["", "a b", "a/b", "x" * 65, "pod1\n", *HOSTILE], ids=ascii)
async def test_an_id_that_is_none_is_never_sent(desk: Desk, pod_id: str) -> None:
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(CloudRefused):
            await cloud.get_pod(pod_id)
        with pytest.raises(CloudRefused):
            await cloud.terminate_pod(pod_id)
    assert desk.queries == []


@pytest.mark.parametrize("pod_id", ["pod_abc123", "2q9m7x4c", "a-b"])
async def test_the_mutation_ends_exactly_the_pod_that_was_named(desk: Desk, pod_id: str) -> None:
    async with cloud_at(desk.url) as cloud:
        await cloud.terminate_pod(pod_id)
    assert desk.mutation.name.value == "podTerminate"
    assert desk.mutation_input == {"podId": pod_id}


def test_without_the_checks_a_name_would_end_somebody_elses_pod() -> None:
    """The reason for all this: what the SDK would write is a valid query with a second mutation in it."""
    sdk_mutations = importlib.import_module("runpod.api.mutations.pods")
    text = sdk_mutations.generate_pod_terminate_mutation(
        'mine" }) second: podTerminate(input: { podId: "victim'
    )
    assert len(only_operation(text).selection_set.selections) == 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "image name or a template id"),
        ({"image_name": ""}, "image name or a template id"),
        ({"image_name": 'a"b'}, "image name"),
        ({"image_name": "a b"}, "image name"),
        ({"template_id": "a b"}, "template id"),
        ({"image_name": "i", "gpu_count": 0}, "gpu_count"),
        ({"image_name": "i", "gpu_count": True}, "gpu_count"),
        ({"image_name": "i", "volume_gb": -1}, "volume_in_gb"),
        ({"image_name": "i", "container_disk_gb": 0}, "container_disk_in_gb"),
        ({"image_name": "i", "network_volume_id": 'x"'}, "network volume id"),
        ({"image_name": "i", "volume_mount_path": "workspace"}, "mount path"),
        ({"image_name": "i", "ports": "8188"}, "ports"),
        ({"image_name": "i", "ports": '8188/http"'}, "ports"),
        ({"image_name": "i", "extra": {"name": "x"}}, "name cannot"),
        ({"image_name": "i", "extra": {"env": {}}}, "env cannot"),
        ({"image_name": "i", "extra": {"ports": "1/http"}}, "ports cannot"),
        ({"image_name": "i", "extra": {"gpu_type_id": None}}, "RUNPOD_GPU_TYPE_ID"),
        ({"image_name": "i", "extra": {"instance_id": "cpu3c-2-4"}}, "without a GPU"),
        ({"image_name": "i", "extra": {"volumeInGb": 1}}, "volumeInGb"),
        ({"image_name": "i", "extra": {"start_ssh": "yes"}}, "start_ssh"),
        ({"image_name": "i", "extra": {"country_code": "Romania"}}, "country code"),
        ({"image_name": "i", "extra": {"docker_args": 'bash -c "x"'}}, "docker_args"),
        ({"image_name": "i", "extra": {"min_vcpu_count": "8"}}, "min_vcpu_count"),
        ({"image_name": "i", "extra": {"allowed_cuda_versions": "12.8"}}, "allowed_cuda_versions"),
        ({"image_name": "i", "extra": {"allowed_cuda_versions": ['12"']}}, "CUDA version"),
        ({"image_name": "i", "extra": {"cloud_type": "ANY"}}, "cloud type"),
    ],
)
def test_a_wrong_order_is_found_at_the_start(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RunPodOrder(**fields)


def test_a_template_alone_is_enough_and_may_bring_its_own_disk() -> None:
    order = RunPodOrder(template_id="tpl1", container_disk_gb=None)
    assert order.keywords_for(CANDIDATE)["template_id"] == "tpl1"
    assert "container_disk_in_gb" not in order.keywords()
    assert RunPodOrder(extra={"template_id": "tpl2"}).keywords()["template_id"] == "tpl2"


def test_env_values_are_never_part_of_a_complaint() -> None:
    with pytest.raises(ValueError, match="TOKEN") as caught:
        checked_env({"TOKEN": f'{SECRET}"'})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
def test_a_key_that_cannot_be_one_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        RunPodSdkCloud(api_key=key, api_base="http://x", order_defaults=DEFAULTS, request_timeout_s=1)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "secrets", "shown"),
    [
        ("Something went wrong.\n Please\ttry again", [], "Something went wrong. Please try again"),
        ("token hunter2hunter2 refused", ["hunter2", "hunter2hunter2"], "token *** refused"),
        ('found String "abc" and "de', [], 'found String "…" and "…"'),
        (f"key {SECRET}", [], "key ***"),
        ("value 1 of 1", ["1"], "value 1 of 1"),
        ("bell\x07 and \u202eright", [], "bell and right"),
        ("no " * 300, [], ("no " * 300)[:200]),
    ],
)
def test_a_message_is_told_without_what_it_might_give_away(
    message: str, secrets: list[str], shown: str
) -> None:
    assert scrubbed(message, secrets) == shown


async def test_the_key_goes_to_the_api_and_no_file_or_proxy_changes_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    async with cloud_at(f"{desk.url}/") as cloud:
        await cloud.list_pods()
    assert desk.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert desk.headers[0]["User-Agent"].startswith("RunPod-Python-SDK/1.")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("api.localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("api.runpod.io", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_only_this_machine_is_kept_from_the_proxy(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_without_the_package_nothing_was_made(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runpod", None)
    with pytest.raises(CloudUnavailable, match="cannot be imported"):
        await create(desk)
    async with cloud_at(desk.url) as cloud:
        with pytest.raises(ImportError):
            await cloud.load_sdk()


async def test_no_log_line_holds_a_secret(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await create(desk, env={"AUTH_TOKEN": SECRET})
    async with saying(b"") as dead, cloud_at(dead) as cloud:
        with pytest.raises(CloudUnavailable):
            await cloud.create_pod(PodOrder("comfy-gw-a-b", CANDIDATE, {"AUTH_TOKEN": SECRET}))
    assert "graphql" in caplog.text
    assert SECRET not in caplog.text
    assert KEY not in caplog.text


def test_an_order_shown_in_a_log_hides_its_env() -> None:
    assert SECRET not in repr(PodOrder("comfy-gw-a-b", CANDIDATE, {"AUTH_TOKEN": SECRET}))


async def test_a_price_is_asked_again_after_an_hour(desk: Desk) -> None:
    now = 1000.0
    async with cloud_at(desk.url, monotonic=lambda: now) as cloud:
        assert await cloud.price_per_hour_usd(CANDIDATE) == 1.0
        now += 3599
        await cloud.price_per_hour_usd(CANDIDATE)
        assert len(desk.queries) == 1
        now += 2
        await cloud.price_per_hour_usd(CANDIDATE)
        assert len(desk.queries) == 2


PROGRAM = """
import asyncio, sys
from comfy_gateway.adapters.runpod import RunPodOrder, RunPodSdkCloud
from comfy_gateway.core.errors import CloudUnavailable

started = []
sys.addaudithook(lambda event, about: started.append(about[0]) if event == "subprocess.Popen" else None)

async def main():
    assert "runpod" not in sys.modules
    cloud = RunPodSdkCloud(api_key="k", api_base=sys.argv[1], order_defaults=RunPodOrder(image_name="i"),
                           request_timeout_s=0.2)
    loading = asyncio.ensure_future(cloud.load_sdk())
    turns = 0
    while not loading.done():
        await asyncio.sleep(0.01)
        turns += 1
    await loading
    assert "runpod" in sys.modules
    # A processor that is measured costs a second.
    assert sys.executable not in started, started
    try:
        await cloud.list_pods()
    except CloudUnavailable:
        print(turns)
    await cloud.aclose()

asyncio.run(main())
"""


async def test_the_import_does_not_stop_the_loop_and_a_hanging_call_does_not_stop_the_exit() -> None:
    async with saying(None) as silent:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, silent),
            cwd=Path(__file__).parents[2] / "addons",
            stdout=subprocess.PIPE,
        )
        async with asyncio.timeout(25):
            output, _ = await process.communicate()
    assert process.returncode == 0
    assert int(output) > 3  # an import in the loop would leave it one turn


# What only GraphQL does -------------------------------------------------------------------------------------


async def test_an_empty_answer_to_a_create_is_a_capacity_refusal() -> None:
    sim = RunPodSimulator(api_key=KEY)
    sim.faults.add(Fault(operation="create", kind="null"))
    async with serve(sim) as served, cloud_at(served.api_base) as cloud:
        with pytest.raises(CapacityRefused):
            await cloud.create_pod(PodOrder("comfy-gw-a-b", CANDIDATE, {}))


async def test_the_end_of_the_old_api_is_said_with_the_setting_that_helps() -> None:
    sim = RunPodSimulator(api_key=KEY)
    now_s = 0.0
    async with serve(sim) as served, cloud_at(served.api_base, monotonic=lambda: now_s) as cloud:
        assert await cloud.list_pods() == []
        sim.retired = True
        for ask in (
            cloud.list_pods,
            lambda: cloud.get_pod("pod1"),
            lambda: cloud.price_per_hour_usd(CANDIDATE),
        ):
            with pytest.raises(CloudUnavailable, match="set RUNPOD_API=v2"):
                await ask()
        assert sim.calls["retired"] == 4, "three calls, and one question why"
        sim.retired = False
        assert await cloud.list_pods() == []
        now_s += 61
        sim.faults.add(Fault(operation="list", kind="http_error"))
        with pytest.raises(CloudUnavailable) as caught:
            await cloud.list_pods()
        assert "RUNPOD_API" not in str(caught.value)


async def test_a_failure_is_no_end_of_the_api_where_nobody_answers_the_question() -> None:
    """The server goes away between the answer and the question."""
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked > 1 and request.transport is not None:
            request.transport.abort()
        return web.json_response({"message": "oops"}, status=500)

    async with answering(answer) as url, cloud_at(url) as cloud:
        with pytest.raises(CloudUnavailable) as caught:
            await cloud.list_pods()
    assert (asked, "RUNPOD_API" in str(caught.value)) == (2, False)
