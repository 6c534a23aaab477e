"""The promises of ``core.ports.Cloud``, over every implementation and a simulated account.

The simulator spoils answers in the ways that were seen of the real service. What matters is always the same:
"nothing was made" and "the pod is gone" may be said only where they are certain.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from comfy_gateway.adapters.runpod import RunPodOrder, RunPodSdkCloud, RunPodV2Cloud
from comfy_gateway.adapters.runpod_import import import_sdk
from comfy_gateway.core.errors import (
    CapacityRefused,
    CloudError,
    CloudRefused,
    CloudUnauthorized,
    CloudUnavailable,
)
from comfy_gateway.core.ports import Candidate, Cloud, CloudPod, PodOrder
from simulators.runpod import (
    CAPACITY_TEXTS,
    AccountChange,
    Delays,
    Fault,
    NetworkVolume,
    RunPodSimulator,
    serve,
)
from simulators.runpod import PodOrder as SimulatedOrder
from tests.conditions import wait_for

KEY = "rpa_TESTKEY0123456789abcdefghij"
SECRET = "0123456789abcdef" * 4
GPU = "NVIDIA GeForce RTX 4090"
NAME = "comfy-gw-alice0a1b2c3d-a1"
PATIENT_S = 20.0
IMPATIENT_S = 1.0
HANGS = {"hang", "commit_hang", "trickle"}

CreateCloud = Callable[..., Cloud]
Bodies = Mapping[str, str]
"""What is answered instead, by API."""


@dataclass(frozen=True)
class Api:
    """One of RunPod's APIs, and the adapter that speaks it."""

    name: str
    create_cloud: CreateCloud
    gpu_name: str
    """What it calls ``GPU`` in a list."""


APIS = [
    Api("sdk", RunPodSdkCloud, gpu_name="RTX 4090"),
    Api("v2", RunPodV2Cloud, gpu_name=GPU),
]


def graphql(body: str) -> Bodies:
    """For what only GraphQL could answer; the other API answers something that is no JSON."""
    return {"sdk": body, "v2": "<no JSON>"}


@pytest.fixture(scope="session")
def _sdk_is_loaded() -> None:
    """The SDK's import takes a third of a second, which no test's deadline should pay for."""
    import_sdk()


@pytest.fixture(params=APIS, ids=[api.name for api in APIS])
def api(request: pytest.FixtureRequest, _sdk_is_loaded: None) -> Api:
    """Each of them."""
    told: Api = request.param
    return told


@pytest.fixture
def create_cloud(api: Api) -> CreateCloud:
    """One constructor for each implementation over RunPod's APIs."""
    return api.create_cloud


@dataclass
class Account:
    """What the test sees of the account (``sim``), and what the gateway sees of it (``cloud``).

    ``impatient`` is the same with a short request timeout, for calls that hang.
    """

    sim: RunPodSimulator
    cloud: Cloud
    impatient: Cloud
    api_base: str
    api: Api

    def cloud_for(self, kind: str) -> Cloud:
        """The cloud to use where answers are spoilt in this way."""
        return self.impatient if kind in HANGS else self.cloud

    def spoil(self, operation: Any, kind: Any, **details: Any) -> None:
        """A ``body`` is one for each API."""
        if "body" in details:
            details["body"] = details["body"][self.api.name]
        if self.api.name == "v2" and "reset" in kind and operation != "create":
            # Its HTTP library asks once more by itself where that is safe.
            details = {"times": 2} | details
        self.sim.faults.add(Fault(operation=operation, kind=kind, **details))


DEFAULTS = RunPodOrder(image_name="example/comfyui:1", container_disk_gb=33, gpu_count=2)


@pytest.fixture
async def account(api: Api, create_cloud: CreateCloud) -> AsyncIterator[Account]:
    sim = RunPodSimulator(api_key=KEY, network_volumes=[NetworkVolume("vol1", "models", 100, "EU-SE-1")])
    async with serve(sim) as served:
        cloud, impatient = (
            create_cloud(
                api_key=KEY, api_base=served.api_base, order_defaults=DEFAULTS, request_timeout_s=timeout_s
            )
            for timeout_s in (PATIENT_S, IMPATIENT_S)
        )
        try:
            yield Account(sim, cloud, impatient, served.api_base, api)
        finally:
            await cloud.aclose()
            await impatient.aclose()


def order(name: str = NAME, gpu: str = GPU, cloud_type: str = "SECURE", **env: str) -> PodOrder:
    return PodOrder(
        name=name,
        candidate=Candidate(gpu_type=gpu, cloud_type=cloud_type),
        env={"AUTH_TOKEN": SECRET, "GATEWAY_POD_TOKEN": SECRET[::-1]} | env,
    )


def assert_tells_no_secret(error: BaseException) -> None:
    """No text, attribute or linked exception leads to the key, a token or the query."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        for text in (str(one), repr(one), repr(vars(one)), repr(one.args)):
            for secret in (KEY, SECRET, SECRET[::-1], "podFindAndDeploy", "Authorization"):
                assert secret not in text
        assert not hasattr(one, "query")
        assert not hasattr(one, "request")
        waiting += [one.__cause__, one.__context__]


class TestCreate:
    async def test_the_pod_is_there_under_its_id_and_name(self, account: Account) -> None:
        pod_id = await account.cloud.create_pod(order())
        assert [(pod.id, pod.name) for pod in account.sim.living()] == [(pod_id, NAME)]

    async def test_the_order_arrives_as_it_was_given(self, account: Account) -> None:
        given = PodOrder(
            name=NAME,
            candidate=Candidate("NVIDIA L40S", "COMMUNITY", "US-TX-3"),
            env={
                "AUTH_TOKEN": SECRET,
                "HF_TOKEN": "{{ RUNPOD_SECRET_hf }}",
                "NOTE": "it's #1, $HOME & {x: y}",
            },
        )
        await account.cloud.create_pod(given)
        (pod,) = account.sim.living()
        assert pod.env == given.env
        assert pod.gpu is not None
        assert (pod.gpu.id, pod.order.gpu_count) == ("NVIDIA L40S", 2)
        assert (pod.order.cloud_type, pod.order.data_center) == ("COMMUNITY", "US-TX-3")
        assert (pod.order.image, pod.order.container_disk_gb) == ("example/comfyui:1", 33)
        assert pod.order.ports == "8188/http,8000/http"

    async def test_a_network_volume_decides_the_data_center(
        self, account: Account, create_cloud: CreateCloud
    ) -> None:
        cloud = create_cloud(
            api_key=KEY,
            api_base=account.api_base,
            order_defaults=RunPodOrder(template_id="tpl1", network_volume_id="vol1"),
            request_timeout_s=PATIENT_S,
        )
        await cloud.create_pod(order())
        await cloud.aclose()
        (pod,) = account.sim.living()
        assert (pod.data_center, pod.order.template_id) == ("EU-SE-1", "tpl1")
        assert pod.order.volume_mount_path == "/workspace"

    @pytest.mark.parametrize("text", [*CAPACITY_TEXTS, CAPACITY_TEXTS[0].upper()])
    async def test_no_machine_is_a_capacity_refusal(self, account: Account, text: str) -> None:
        account.spoil("create", "capacity", text=text)
        with pytest.raises(CapacityRefused) as caught:
            await account.cloud.create_pod(order())
        assert_tells_no_secret(caught.value)
        assert account.sim.living() == []

    async def test_what_is_not_in_stock_is_a_capacity_refusal(self, account: Account) -> None:
        account.sim.stock[GPU] = "NONE"
        with pytest.raises(CapacityRefused):
            await account.cloud.create_pod(order())
        assert account.sim.pods == {}

    async def test_capacity_of_one_candidate_leaves_the_next_one(self, account: Account) -> None:
        account.spoil("create", "capacity", gpu=GPU, times=None)
        with pytest.raises(CapacityRefused):
            await account.cloud.create_pod(order())
        await account.cloud.create_pod(order(gpu="NVIDIA L40S"))
        assert len(account.sim.living()) == 1

    @pytest.mark.parametrize(
        ("operation", "details"),
        [
            ("create", {"text": "Your account balance is too low to rent this pod", "status": 402}),
            ("create", {"text": "Insufficient funds", "status": 402}),
            ("create", {"text": 'Cannot query field "x" on type "Pod".', "status": 422}),
            ("gpu", {}),
        ],
        ids=["balance", "funds", "not executed", "question before the create"],
    )
    async def test_a_definite_no_is_a_refusal(
        self, account: Account, operation: str, details: dict[str, str]
    ) -> None:
        account.spoil(operation, "errors", **details)
        with pytest.raises(CloudRefused) as caught:
            await account.cloud.create_pod(order())
        assert_tells_no_secret(caught.value)
        assert account.sim.living() == []

    async def test_a_gpu_type_that_the_cloud_does_not_know_is_a_refusal(self, account: Account) -> None:
        with pytest.raises(CloudRefused):
            await account.cloud.create_pod(order(gpu="NVIDIA Potato"))
        assert account.sim.pods == {}

    async def test_an_order_without_a_gpu_buys_nothing(self, account: Account) -> None:
        with pytest.raises(CloudRefused):
            await account.cloud.create_pod(order(gpu=""))
        assert account.sim.calls.total() == 0

    @pytest.mark.parametrize("operation", ["gpu", "create"])
    @pytest.mark.parametrize("kind", ["unauthorized", "unauthorized_errors"])
    async def test_a_refused_key_is_told_from_everything_else(
        self, account: Account, operation: str, kind: str
    ) -> None:
        account.spoil(operation, kind)
        with pytest.raises(CloudUnauthorized) as caught:
            await account.cloud.create_pod(order())
        assert_tells_no_secret(caught.value)
        assert account.sim.living() == []

    @pytest.mark.parametrize(
        ("kind", "details", "pods"),
        [
            ("errors", {}, 0),
            ("errors", {"text": "load balancer error"}, 0),
            ("rate_limited", {}, 0),
            ("http_error", {}, 0),
            ("http_error", {"status": 410}, 0),
            ("html", {}, 0),
            ("html", {"status": 403}, 0),
            ("empty", {}, 0),
            ("null_data", {}, 0),
            (
                "reply",
                {"body": {"sdk": '{"data": {"podFindAndDeployOnDemand": {}}}', "v2": "{}"}},
                0,
            ),
            (
                "reply",
                {
                    "body": {
                        "sdk": '{"data": {"podFindAndDeployOnDemand": {"id": "a/b"}}}',
                        "v2": '{"id": "a/b", "status": "PROVISIONING"}',
                    }
                },
                0,
            ),
            ("reply", {"body": graphql('{"errors": []}')}, 0),
            ("reply", {"body": graphql('{"errors": null}')}, 0),
            ("reply", {"body": graphql('{"errors": [{"message": null}]}')}, 0),
            ("reply", {"body": graphql('{"errors": [{"message": {"a": 1}}]}')}, 0),
            ("reply", {"body": {"sdk": "[]", "v2": "[]"}}, 0),
            ("reset", {}, 0),
            ("hang", {}, 0),
            ("commit_error", {}, 1),
            ("commit_hang", {}, 1),
            ("commit_reset", {}, 1),
            ("trickle", {}, 1),
        ],
    )
    async def test_every_other_answer_leaves_the_outcome_unknown(
        self, account: Account, kind: str, details: dict[str, Any], pods: int
    ) -> None:
        account.spoil("create", kind, **details)
        with pytest.raises(CloudUnavailable) as caught:
            await account.cloud_for(kind).create_pod(order())
        assert_tells_no_secret(caught.value)
        assert [pod.name for pod in account.sim.living()] == [NAME] * pods

    async def test_what_the_cloud_quotes_of_the_order_is_not_repeated(self, account: Account) -> None:
        text = f'Expected Name, found String "{SECRET}" near AUTH_TOKEN {SECRET[::-1]} hunter2 of {KEY}'
        account.spoil("create", "errors", text=text)
        with pytest.raises(CloudUnavailable, match="Expected Name") as caught:
            await account.cloud.create_pod(order(PASSWORD="hunter2"))
        assert_tells_no_secret(caught.value)
        assert "hunter2" not in str(caught.value)

    async def test_a_create_given_up_before_it_was_sent_never_makes_a_pod(self, account: Account) -> None:
        account.spoil("gpu", "slow", seconds=IMPATIENT_S * 1.5)
        with pytest.raises(CloudUnavailable):
            await account.impatient.create_pod(order())
        await account.impatient.aclose()
        await wait_for(no_thread_works, "the end of the SDK's threads")
        assert account.sim.calls == {"gpu": 1}

    async def test_a_cancelled_create_never_makes_a_pod_later(self, account: Account) -> None:
        account.spoil("gpu", "slow", seconds=0.3)
        creating = asyncio.ensure_future(account.cloud.create_pod(order()))
        await wait_for(lambda: account.sim.calls["gpu"] == 1, "the calls to arrive")
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await account.cloud.aclose()
        await wait_for(no_thread_works, "the end of the SDK's threads")
        assert account.sim.calls == {"gpu": 1}

    async def test_forty_orders_at_once_are_forty_pods(
        self, account: Account, create_cloud: CreateCloud
    ) -> None:
        cloud = create_cloud(
            api_key=KEY, api_base=account.api_base, order_defaults=DEFAULTS, request_timeout_s=PATIENT_S
        )
        names = [f"comfy-gw-u{index}-a" for index in range(40)]
        ids = await asyncio.gather(*(cloud.create_pod(order(name)) for name in names))
        await cloud.aclose()
        assert {pod.id: pod.name for pod in account.sim.living()} == dict(zip(ids, names, strict=True))


def no_thread_works() -> bool:
    """Whether the threads of a closed cloud have ended: none of them can send anything any more."""
    return not any(thread.name.startswith("runpod") for thread in threading.enumerate())


class TestAccount:
    async def test_without_money_nothing_is_made_and_that_is_certain(self, account: Account) -> None:
        account.sim.change_account(AccountChange(balance_usd=0.1))
        with pytest.raises(CloudRefused, match="balance"):
            await account.cloud.create_pod(order())
        assert account.sim.living() == []

    async def test_at_the_accounts_spend_cap_neither(self, account: Account) -> None:
        account.sim.change_account(AccountChange(spend_cap_usd_per_hour=0.1))
        with pytest.raises(CloudRefused, match="spend limit"):
            await account.cloud.create_pod(order())
        assert account.sim.living() == []

    async def test_with_too_many_calls_nothing_is_known_and_nothing_gone(self, account: Account) -> None:
        pod_id = await account.cloud.create_pod(order())
        account.sim.change_account(AccountChange(calls_per_minute=1))
        await account.cloud.list_pods()
        with pytest.raises(CloudUnavailable):
            await account.cloud.list_pods()
        with pytest.raises(CloudUnavailable):
            await account.cloud.get_pod(pod_id)
        account.sim.change_account(AccountChange(calls_per_minute=None))
        assert len(account.sim.living()) == 1


class TestLook:
    async def test_the_list_tells_what_is_known_of_a_pod(self, account: Account) -> None:
        pod_id = await account.cloud.create_pod(order())
        (pod,) = await account.cloud.list_pods()
        assert pod == await account.cloud.get_pod(pod_id)
        assert pod == CloudPod(
            id=pod_id,
            name=NAME,
            is_running=True,
            has_machine=True,
            cost_per_hour_usd=2 * 0.69,
            gpu_type=account.api.gpu_name,
            status_text=pod.status_text,
            created_at=pod.created_at,
            is_placed=True,
            gpu_percents=pod.gpu_percents,
        )
        assert pod.status_text.startswith({"sdk": "Rented by User", "v2": "RUNNING"}[account.api.name])
        assert pod.created_at is not None
        assert abs(datetime.now(UTC) - pod.created_at) < timedelta(minutes=5)

    async def test_a_pod_on_a_bad_host_is_told_from_one_that_starts(self, account: Account) -> None:
        account.sim.delays = Delays(runtime_s=1000)
        account.sim.faults.add(Fault(operation="create", kind="no_machine", nth=2))
        await account.cloud.create_pod(order())
        await account.cloud.create_pod(order(NAME + "2"))
        good, bad = await account.cloud.list_pods()
        assert good.is_placed is not False
        assert bad.is_placed is False
        assert not good.has_machine
        assert not bad.has_machine

    async def test_an_account_without_pods_has_an_empty_list(self, account: Account) -> None:
        assert list(await account.cloud.list_pods()) == []

    async def test_pods_of_others_are_listed_too(self, account: Account) -> None:
        for name in ("comfy-gw-a-b", "somebody-elses", "my pod"):
            account.sim.create(SimulatedOrder(name=name))
        names = [pod.name for pod in await account.cloud.list_pods()]
        assert names == ["comfy-gw-a-b", "somebody-elses", "my pod"]

    async def test_a_pod_that_still_starts_has_no_machine_yet(self, account: Account) -> None:
        account.sim.delays = Delays(runtime_s=1000)
        pod = await account.cloud.get_pod(await account.cloud.create_pod(order()))
        assert pod is not None
        assert (pod.is_running, pod.has_machine) == (True, False)

    async def test_a_pod_that_exited_does_not_run_whatever_its_stale_runtime_says(
        self, account: Account
    ) -> None:
        account.sim.delays = Delays(stale_runtime_s=1000)
        pod_id = await account.cloud.create_pod(order())
        account.sim.kill(pod_id, "Exited by Runpod")
        pod = await account.cloud.get_pod(pod_id)
        assert pod is not None
        assert (pod.is_running, pod.has_machine) == (False, False)
        assert pod.status_text.startswith({"sdk": "Exited by Runpod", "v2": "EXITED"}[account.api.name])

    async def test_a_pod_that_does_not_exist_is_none(self, account: Account) -> None:
        assert await account.cloud.get_pod("nosuchpod") is None

    @pytest.mark.parametrize(
        ("kind", "details"),
        [
            ("null", {}),
            ("null_list", {}),
            ("null_data", {}),
            ("errors", {}),
            ("rate_limited", {}),
            ("http_error", {}),
            ("html", {}),
            ("empty", {}),
            ("reset", {}),
            ("hang", {}),
            ("trickle", {}),
            ("reply", {"body": {"sdk": '{"data": {"myself": {"pods": {}}}}', "v2": '{"pods": {}}'}}),
            ("reply", {"body": {"sdk": '{"data": {"myself": {"pods": [null]}}}', "v2": '{"pods": [null]}'}}),
            (
                "reply",
                {
                    "body": {
                        "sdk": '{"data": {"myself": {"pods": [{"name": "x"}]}}}',
                        "v2": '{"pods": [{"id": "x", "name": "x"}]}',
                    }
                },
            ),
        ],
    )
    async def test_a_list_that_is_none_is_never_an_empty_one(
        self, account: Account, kind: str, details: dict[str, Any]
    ) -> None:
        await account.cloud.create_pod(order())
        account.spoil("list", kind, **details)
        asked = account.impatient if kind == "rate_limited" else account.cloud_for(kind)
        with pytest.raises(CloudUnavailable) as caught:
            await asked.list_pods()
        assert_tells_no_secret(caught.value)
        assert len(await account.cloud.list_pods()) == 1

    @pytest.mark.parametrize(
        "kind", ["null_data", "errors", "rate_limited", "http_error", "html", "empty", "reset", "hang"]
    )
    async def test_no_answer_about_a_pod_never_means_that_it_is_gone(
        self, account: Account, kind: str
    ) -> None:
        pod_id = await account.cloud.create_pod(order())
        account.spoil("get", kind)
        with pytest.raises(CloudUnavailable) as caught:
            await account.cloud_for(kind).get_pod(pod_id)
        assert_tells_no_secret(caught.value)

    @pytest.mark.parametrize("kind", ["unauthorized", "unauthorized_errors"])
    async def test_a_refused_key_is_told_from_an_empty_account(self, account: Account, kind: str) -> None:
        account.spoil("any", kind, times=None)
        with pytest.raises(CloudUnauthorized):
            await account.cloud.list_pods()
        with pytest.raises(CloudUnauthorized):
            await account.cloud.get_pod("pod1")

    async def test_another_key_is_refused(self, account: Account, create_cloud: CreateCloud) -> None:
        other = create_cloud(
            api_key="rpa_OTHER",
            api_base=account.api_base,
            order_defaults=DEFAULTS,
            request_timeout_s=PATIENT_S,
        )
        with pytest.raises(CloudUnauthorized):
            await other.list_pods()
        await other.aclose()


class TestEnd:
    async def test_a_terminated_pod_is_gone(self, account: Account) -> None:
        kept = await account.cloud.create_pod(order("comfy-gw-b-b"))
        ended = await account.cloud.create_pod(order())
        await account.cloud.terminate_pod(ended)
        assert await account.cloud.get_pod(ended) is None
        assert [pod.id for pod in await account.cloud.list_pods()] == [kept]

    async def test_ending_a_pod_again_is_no_failure(self, account: Account) -> None:
        pod_id = await account.cloud.create_pod(order())
        await account.cloud.terminate_pod(pod_id)
        await account.cloud.terminate_pod(pod_id)

    @pytest.mark.parametrize("kind", ["swallow", "http_error", "rate_limited"])
    async def test_a_return_proves_nothing_and_reading_back_tells(self, account: Account, kind: str) -> None:
        pod_id = await account.cloud.create_pod(order())
        account.spoil("terminate", kind)
        # Not every API hides what came of it.
        with contextlib.suppress(CloudUnavailable):
            await account.impatient.terminate_pod(pod_id)
        assert await account.cloud.get_pod(pod_id) is not None

    @pytest.mark.parametrize("kind", ["errors", "html", "empty", "reset", "hang", "commit_reset"])
    async def test_no_answer_to_the_end_is_unavailable(self, account: Account, kind: str) -> None:
        pod_id = await account.cloud.create_pod(order())
        account.spoil("terminate", kind)
        with pytest.raises(CloudUnavailable) as caught:
            await account.cloud_for(kind).terminate_pod(pod_id)
        assert_tells_no_secret(caught.value)

    @pytest.mark.parametrize("kind", ["unauthorized", "unauthorized_errors"])
    async def test_a_refused_key_is_said(self, account: Account, kind: str) -> None:
        account.spoil("terminate", kind)
        with pytest.raises(CloudUnauthorized):
            await account.cloud.terminate_pod("pod1")

    async def test_calls_that_hang_do_not_keep_pods_alive(self, account: Account) -> None:
        pod_id = await account.cloud.create_pod(order())
        account.spoil("list", "hang", times=None)
        looks = asyncio.gather(*(account.cloud.list_pods() for _ in range(30)))
        await wait_for(lambda: account.sim.calls["list"] >= 8, "the calls to arrive")
        await account.cloud.terminate_pod(pod_id)
        assert account.sim.living() == []
        assert not looks.done()
        looks.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looks


class TestPrice:
    @pytest.mark.parametrize(("cloud_type", "price"), [("SECURE", 0.69), ("COMMUNITY", 0.34), ("ALL", 0.69)])
    async def test_the_price_is_for_all_gpus_of_a_pod(
        self, account: Account, cloud_type: str, price: float
    ) -> None:
        assert await account.cloud.price_per_hour_usd(Candidate(GPU, cloud_type)) == pytest.approx(2 * price)

    async def test_users_who_burst_together_ask_for_a_price_once(self, account: Account) -> None:
        prices = await asyncio.gather(
            *(account.cloud.price_per_hour_usd(Candidate(GPU, "SECURE")) for _ in range(50))
        )
        assert set(prices) == {2 * 0.69}
        assert account.sim.calls["gpu"] == 1

    async def test_a_gpu_without_a_price_has_none(self, account: Account) -> None:
        assert await account.cloud.price_per_hour_usd(Candidate("NVIDIA Potato", "SECURE")) is None
        nothing = {"sdk": '{"data": {"gpuTypes": [{"securePrice": null}]}}', "v2": '{"price": {}}'}
        account.spoil("gpu", "reply", body=nothing)
        assert await account.cloud.price_per_hour_usd(Candidate(GPU, "SECURE")) is None

    @pytest.mark.parametrize(
        ("kind", "details"),
        [
            ("null", {}),
            ("null_data", {}),
            ("errors", {}),
            ("http_error", {}),
            ("html", {}),
            ("reset", {}),
            ("hang", {}),
            ("reply", {"body": {"sdk": '{"data": {"gpuTypes": [null]}}', "v2": "[null]"}}),
        ],
    )
    async def test_no_answer_about_a_price_is_unavailable_and_not_remembered(
        self, account: Account, kind: str, details: dict[str, Any]
    ) -> None:
        account.spoil("gpu", kind, **details)
        cloud = account.cloud_for(kind)
        with pytest.raises(CloudUnavailable):
            await cloud.price_per_hour_usd(Candidate(GPU, "SECURE"))
        assert await cloud.price_per_hour_usd(Candidate(GPU, "SECURE")) is not None


class TestTime:
    async def test_a_call_takes_the_request_timeout_and_no_longer(self, account: Account) -> None:
        account.spoil("any", "hang", times=None)
        candidate = Candidate(GPU, "SECURE")
        async with asyncio.timeout(IMPATIENT_S + 2):
            outcomes = await asyncio.gather(
                account.impatient.create_pod(order()),
                account.impatient.list_pods(),
                account.impatient.get_pod("pod1"),
                account.impatient.terminate_pod("pod1"),
                *(account.impatient.price_per_hour_usd(candidate) for _ in range(3)),
                return_exceptions=True,
            )
        assert [type(outcome) for outcome in outcomes] == [CloudUnavailable] * 7

    async def test_the_event_loop_runs_on_during_a_call(self, account: Account) -> None:
        account.spoil("list", "slow", seconds=0.3)
        turns = 0
        listing = asyncio.ensure_future(account.cloud.list_pods())
        while not listing.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert await listing == []
        assert turns >= 5

    async def test_a_closed_cloud_answers_nothing(self, account: Account) -> None:
        await account.cloud.aclose()
        await account.cloud.aclose()
        with pytest.raises(CloudUnavailable):
            await account.cloud.list_pods()
        with pytest.raises(CloudUnavailable):
            await account.cloud.create_pod(order())
        assert account.sim.calls.total() == 0

    async def test_calls_that_wait_for_their_turn_end_with_the_cloud(self, account: Account) -> None:
        account.spoil("list", "hang", times=None)
        calls = asyncio.gather(*(account.impatient.list_pods() for _ in range(20)), return_exceptions=True)
        await wait_for(lambda: account.sim.calls["list"] >= 8, "the calls to arrive")
        await account.impatient.aclose()
        async with asyncio.timeout(IMPATIENT_S + 2):
            assert all(isinstance(outcome, CloudError) for outcome in await calls)
        assert account.sim.calls["list"] == 8
