"""The simulated cloud over raw HTTP: GraphQL, the pods' proxy, their agent, ledger, admin API and command."""

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from yarl import URL

from simulators.clock import FakeClock
from simulators.comfyui import ComfySimulator, Installation
from simulators.comfyui import serve as serve_comfy
from simulators.runpod import (
    GPU_TYPES,
    Borrowed,
    Delays,
    Fault,
    FaultTable,
    PodOrder,
    ProxyLimits,
    RunPodSimulator,
    Served,
    SimPod,
    Step,
    serve,
)
from simulators.runpod import __main__ as program
from simulators.runpod.faults import Call

KEY = "test-key"
TOKEN = {"X-Comfy-Gateway-Token": "door"}
AGENT = {"Authorization": "Bearer watch"}
LEASE = {"X-Comfy-Gateway-Lease": "1"}
RTX_4090 = GPU_TYPES[0]
LIMITS = ProxyLimits(body_bytes=100_000, response_s=0.3, socket_idle_s=0.3)
SLEEP = {"1": {"class_type": "SimSleep", "inputs": {"seconds": 0.0, "steps": 1}}}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> RunPodSimulator:
    return RunPodSimulator(api_key=KEY, clock=clock)


@pytest.fixture
async def served(cloud: RunPodSimulator) -> AsyncIterator[Served]:
    async with serve(cloud, limits=LIMITS) as served:
        yield served


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def rent(cloud: RunPodSimulator, **wishes: Any) -> SimPod:
    given: dict[str, Any] = {
        "name": "comfy-gw-ann-1",
        "gpu": RTX_4090,
        "cloud_type": "SECURE",
        "ports": "8188/http,8000/http,3000/http,22/tcp,9999",
        "env": {"GATEWAY_POD_TOKEN": "door", "AUTH_TOKEN": "watch"},
    } | wishes
    return cloud.create(PodOrder(**given))


async def eventually(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server, not in this test
            await asyncio.sleep(0.005)


async def status(client: aiohttp.ClientSession, url: str, **wishes: Any) -> int:
    async with client.get(url, **wishes) as response:
        return response.status


class TestGraphQL:
    @staticmethod
    async def ask(client: aiohttp.ClientSession, served: Served, **body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with client.post(f"{served.api_base}/graphql", json=body, headers=headers) as response:
            return response.status, await response.json()

    async def test_only_what_is_selected_is_answered(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        query = f'{{ mine: pod(input: {{podId: "{pod.id}"}}) {{ name machine {{ dataCenterId }} }} }}'
        assert await self.ask(client, served, query=query) == (
            200,
            {"data": {"mine": {"name": "comfy-gw-ann-1", "machine": {"dataCenterId": "EU-RO-1"}}}},
        )

    async def test_variables_are_understood(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        query = "query ($id: String) { pod(input: {podId: $id}) { id } }"
        code, told = await self.ask(client, served, query=query, variables={"id": pod.id})
        assert (code, told) == (200, {"data": {"pod": {"id": pod.id}}})
        assert cloud.call_log[-1].pod_id == pod.id

    @pytest.mark.parametrize(
        "query",
        ["{ pod(", "{ myself { nonsense } }", 'mutation { podStop(input: {podId: "a" b}) { id } }', 7],
        ids=["syntax", "unknown field", "broken input", "no text"],
    )
    async def test_a_query_that_makes_no_sense_is_answered_with_400_and_errors(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, query: Any
    ) -> None:
        code, told = await self.ask(client, served, query=query)
        assert code == 400
        assert told["errors"][0]["message"]
        assert cloud.call_log == []

    async def test_the_server_side_timers_are_accepted_and_do_nothing(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        query = (
            'mutation { podFindAndDeployOnDemand(input: {name: "t", gpuTypeId: "NVIDIA L40S",'
            ' terminateAfter: "2020-01-01T00:00:00Z"}) { id } }'
        )
        assert (await self.ask(client, served, query=query))[0] == 200
        clock.advance(24 * 3600)
        assert len(cloud.living()) == 1

    async def test_a_running_prompt_shows_as_gpu_utilisation(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        pod.telemetry.script(Step(gpu_percent=42.0))
        query = f'{{ pod(input: {{podId: "{pod.id}"}}) {{ runtime {{ gpus {{ gpuUtilPercent }} }} }} }}'
        _, told = await self.ask(client, served, query=query)
        assert told["data"]["pod"]["runtime"]["gpus"] == [{"gpuUtilPercent": 42.0}]


class TestProxy:
    async def test_unknown_pods_and_undeclared_ports_are_404_for_ever(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        bare = rent(cloud, ports="8188")
        pod = rent(cloud)
        clock.advance(24 * 3600)
        pod = rent(cloud)
        for url in (
            served.pod_url("nosuchpod"),
            served.pod_url(bare.id),
            served.pod_url(pod.id, 8080),
            served.pod_url(pod.id, 22),
            served.pod_url(pod.id, 9999),
        ):
            assert await status(client, f"{url}/queue", headers=TOKEN) == 404

    async def test_nothing_listens_until_the_boot_is_over(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        cloud.delays = Delays(runtime_s=2, port_s=4, agent_ready_s=6, app_ready_s=10)
        pod = rent(cloud)
        seen = []
        for _ in range(6):
            app = await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN)
            agent = await status(client, served.pod_url(pod.id, 8000) + "/healthz")
            seen.append((app, agent))
            clock.advance(2)
        assert seen == [(502, 502), (502, 502), (502, 502), (502, 200), (502, 200), (200, 200)]
        assert await status(client, served.pod_url(pod.id, 3000)) == 502

    async def test_a_stuck_pod_answers_502(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        pod = rent(cloud)
        pod.stuck = True
        clock.advance(1000)
        assert await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN) == 502

    async def test_the_front_door_wants_the_token_of_the_pods_env(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        url = served.pod_url(pod.id)
        assert await status(client, f"{url}/queue") == 401
        assert await status(client, f"{url}/queue", headers={"X-Comfy-Gateway-Token": "guess"}) == 401
        assert await status(client, f"{url}/queue", headers=TOKEN) == 200
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{url}/ws")
        assert refused.value.status == 401
        assert "X-Comfy-Gateway-Token" not in pod.comfy.requests[-1].headers
        unguarded = rent(cloud, env={})
        assert await status(client, served.pod_url(unguarded.id) + "/queue") == 200

    async def test_a_prompt_runs_on_the_pods_own_comfyui_and_its_events_come_back(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod, other = rent(cloud), rent(cloud)
        url = served.pod_url(pod.id)
        async with client.ws_connect(f"{url}/ws?clientId=c1", headers=TOKEN) as socket:
            body = {"prompt": SLEEP, "client_id": "c1"}
            async with client.post(f"{url}/prompt", json=body, headers=TOKEN) as response:
                prompt_id = (await response.json())["prompt_id"]
            kinds = []
            async with asyncio.timeout(5):
                async for frame in socket:
                    if frame.type is WSMsgType.TEXT:
                        kinds.append(json.loads(frame.data)["type"])
                    if "execution_success" in kinds:
                        break
        assert [body["prompt_id"] for body in pod.comfy.accepted] == [prompt_id]
        assert other.comfy.accepted == []

    async def test_pings_pass_through_and_answers_come_back(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        async with (
            client.ws_connect(served.pod_url(pod.id) + "/ws", headers=TOKEN, autoping=False) as socket,
            asyncio.timeout(5),
        ):
            await socket.ping(b"there?")
            while (frame := await socket.receive()).type is not WSMsgType.PONG:
                assert frame.type is WSMsgType.TEXT
        assert frame.data == b"there?"

    async def test_a_socket_that_stays_silent_is_cut(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        async with client.ws_connect(served.pod_url(pod.id) + "/ws", headers=TOKEN) as socket:
            async with asyncio.timeout(5):
                while (frame := await socket.receive()).type is WSMsgType.TEXT:
                    pass
            assert frame.type in (WSMsgType.CLOSED, WSMsgType.ERROR)
            assert socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE

    async def test_a_path_keeps_its_percent_signs(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        url = served.pod_url(pod.id) + "/userdata/workflows%2Fa%20b.json"
        async with client.post(URL(url, encoded=True), data=b"{}", headers=TOKEN) as response:
            assert response.status == 200
        async with client.get(served.pod_url(pod.id) + "/userdata?dir=workflows", headers=TOKEN) as response:
            assert await response.json() == ["a b.json"]

    @pytest.mark.parametrize("chunked", [False, True], ids=["declared length", "chunked"])
    async def test_a_body_over_the_limit_is_413(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, chunked: bool
    ) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b"x" * 10_000

        pod = rent(cloud)
        body = chunks() if chunked else b"x" * 100_001
        url = served.pod_url(pod.id) + "/upload/image"
        async with client.post(url, data=body, headers=TOKEN) as response:
            assert response.status == 413

    async def test_an_upload_below_the_limit_arrives(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        form = aiohttp.FormData()
        form.add_field("image", b"x" * 90_000, filename="a.png", content_type="image/png")
        url = served.pod_url(pod.id)
        async with client.post(f"{url}/upload/image", data=form, headers=TOKEN) as response:
            assert response.status == 200
        async with client.get(f"{url}/view?filename=a.png&type=input", headers=TOKEN) as response:
            assert len(await response.read()) == 90_000

    async def test_an_answer_that_takes_too_long_is_524(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        pod.comfy.mood.delay_s = 30.0
        assert await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN) == 524

    async def test_a_killed_pod_breaks_its_sockets_and_answers_no_more(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        async with client.ws_connect(served.pod_url(pod.id) + "/ws", headers=TOKEN) as socket:
            assert (await socket.receive()).type is WSMsgType.TEXT
            cloud.kill(pod.id)
            async with asyncio.timeout(5):
                assert (await socket.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
        assert await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN) == 502
        cloud.terminate(pod.id)
        assert await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN) == 404

    async def test_a_pod_killed_in_mid_answer_breaks_the_download(
        self, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        form = aiohttp.FormData()
        form.add_field("image", io.BytesIO(bytes(30_000_000)), filename="a.png", content_type="image/png")
        async with serve(cloud) as served:
            pod = rent(cloud)
            url = served.pod_url(pod.id)
            async with client.post(f"{url}/upload/image", data=form, headers=TOKEN) as response:
                assert response.status == 200
            async with client.get(f"{url}/view?filename=a.png&type=input", headers=TOKEN) as response:
                await response.content.readexactly(1000)
                cloud.kill(pod.id)
                with pytest.raises(aiohttp.ClientError):
                    await response.read()

    async def test_a_dead_comfyui_leaves_the_agent_alive_and_may_come_back(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        cloud.kill_app(pod.id)
        assert await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN) == 502
        async with client.get(served.pod_url(pod.id, 8000) + "/metrics", headers=AGENT) as response:
            assert (await response.json())["comfyui"] is None
        cloud.kill_app(pod.id, dead=False)
        assert await status(client, served.pod_url(pod.id) + "/queue", headers=TOKEN) == 200


class TestAgent:
    @staticmethod
    async def metrics(client: aiohttp.ClientSession, served: Served, pod: SimPod) -> Any:
        url = served.telemetry_url_template.format(pod_id=pod.id, port=8000)
        async with client.get(url, headers=AGENT) as response:
            assert response.status == 200
            return await response.json()

    async def test_the_message_has_the_agreed_shape(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        pod = rent(cloud)
        clock.advance(12)
        told = await self.metrics(client, served, pod)
        gpu = told["gpus"][0]
        assert list(told) == [
            "timestamp", "uptime_s", "gpus", "cpu_percent", "memory_used_bytes", "memory_total_bytes",
            "disk_used_bytes", "disk_total_bytes", "comfyui", "model_sync",
        ]  # fmt: skip
        assert list(gpu) == [
            "index", "name", "utilization_percent", "memory_used_bytes", "memory_total_bytes",
            "temperature_celsius", "power_watts",
        ]  # fmt: skip
        assert (told["timestamp"], told["uptime_s"]) == (clock.time(), 12.0)
        assert (gpu["name"], gpu["utilization_percent"]) == (RTX_4090.id, 0.0)
        assert told["comfyui"] == {"queue_running": 0, "queue_pending": 0}
        assert told["model_sync"] == {"state": "idle", "done_bytes": 0, "total_bytes": 0}

    async def test_only_health_is_open(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        url = served.pod_url(pod.id, 8000)
        assert await status(client, f"{url}/healthz") == 200
        assert await status(client, f"{url}/metrics") == 401
        assert await status(client, f"{url}/metrics", headers={"Authorization": "Bearer no"}) == 401
        assert await status(client, f"{url}/elsewhere", headers=AGENT) == 404

    async def test_the_gpu_is_busy_while_a_prompt_runs(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        pod.comfy.mood.paused = True
        url = served.pod_url(pod.id)
        for seed in (1, 2):
            prompt = {"1": {"class_type": "SimSleep", "inputs": {"seconds": 0.0, "steps": 1, "seed": seed}}}
            async with client.post(f"{url}/prompt", json={"prompt": prompt}, headers=TOKEN) as response:
                assert response.status == 200
        told = await self.metrics(client, served, pod)
        assert told["gpus"][0]["utilization_percent"] == 100.0
        assert told["comfyui"] == {"queue_running": 1, "queue_pending": 1}
        pod.comfy.mood.paused = False
        async with asyncio.timeout(5):
            while (told := await self.metrics(client, served, pod))["comfyui"]["queue_running"]:
                pass
        assert told["gpus"][0]["utilization_percent"] == 0.0

    async def test_a_script_replaces_the_truth_for_a_while(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        pod = rent(cloud)
        pod.telemetry.script(
            Step(for_s=10, gpu_percent=75.0, queue_running=1),
            Step(for_s=10, gpu_percent=None, comfyui_answers=False),
        )
        told = await self.metrics(client, served, pod)
        assert (told["gpus"][0]["utilization_percent"], told["comfyui"]["queue_running"]) == (75.0, 1)
        clock.advance(10)
        told = await self.metrics(client, served, pod)
        assert (told["gpus"][0]["utilization_percent"], told["comfyui"]) == (None, None)
        clock.advance(10)
        assert (await self.metrics(client, served, pod))["gpus"][0]["utilization_percent"] == 0.0

    async def test_a_script_may_fail_or_talk_nonsense(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        url = served.pod_url(pod.id, 8000) + "/metrics"
        pod.telemetry.script(Step(status=500))
        assert await status(client, url, headers=AGENT) == 500
        pod.telemetry.script(Step(body="<html>"))
        async with client.get(url, headers=AGENT) as response:
            assert (response.status, await response.text()) == (200, "<html>")
        cloud.kill_agent(pod.id)
        assert await status(client, url, headers=AGENT) == 502

    async def test_only_an_authenticated_request_with_the_header_renews_the_lease(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        pod = rent(cloud)
        url = served.pod_url(pod.id, 8000) + "/metrics"
        await status(client, url, headers=AGENT)
        await status(client, url, headers=LEASE)
        assert pod.lease_times_s == []
        await status(client, url, headers=AGENT | LEASE)
        assert pod.lease_times_s == [clock.monotonic()]

    async def test_a_pod_whose_lease_is_not_renewed_ends_itself(
        self, cloud: RunPodSimulator, clock: FakeClock
    ) -> None:
        env = {"AUTH_TOKEN": "watch", "AGENT_BOOT_GRACE_S": "100", "AGENT_LEASE_S": "60"}
        forgotten, leased = rent(cloud, env=env), rent(cloud, env=env)
        clock.advance(90)
        cloud.renew_lease(leased)
        clock.advance(20)
        assert cloud.living() == [leased]
        clock.advance(30)
        cloud.renew_lease(leased)
        clock.advance(59)
        assert cloud.living() == [leased]
        clock.advance(1)
        assert cloud.living() == []
        assert cloud.ledger.row(forgotten.id).billed_s == 100
        assert cloud.ledger.row(leased.id).billed_s == 200

    async def test_a_pod_with_a_dead_agent_does_not_end_itself(
        self, cloud: RunPodSimulator, clock: FakeClock
    ) -> None:
        pod = rent(cloud)
        cloud.kill_agent(pod.id)
        clock.advance(7 * 24 * 3600)
        assert cloud.living() == [pod]


class TestLedger:
    def test_cost_runs_by_the_second_from_creation_to_the_real_end(self, clock: FakeClock) -> None:
        cloud = RunPodSimulator(clock=clock, delays=Delays(runtime_s=600, terminate_visible_s=600))
        pod = rent(cloud)
        clock.advance(1800)
        assert cloud.ledger.total_usd() == pytest.approx(0.69 / 2)
        assert cloud.ledger.usd_per_hour() == pytest.approx(0.69)
        cloud.terminate(pod.id)
        clock.advance(7200)
        row = cloud.ledger.row(pod.id)
        assert row.billed_s == 1800
        assert row.usd == pytest.approx(0.345)
        assert row.ended_at_s == row.created_at_s + 1800
        assert cloud.ledger.usd_per_hour() == 0.0

    def test_an_exited_pod_lives_but_its_gpu_is_not_paid(self, clock: FakeClock) -> None:
        cloud = RunPodSimulator(clock=clock)
        pod = rent(cloud)
        clock.advance(100)
        cloud.kill(pod.id)
        clock.advance(100)
        assert cloud.living() == [pod]
        cloud.resume(pod.id)
        clock.advance(50)
        cloud.vanish(pod.id)
        clock.advance(100)
        assert cloud.ledger.row(pod.id).billed_s == 150
        assert cloud.living() == []

    def test_calls_are_counted_by_time(self, clock: FakeClock) -> None:
        cloud = RunPodSimulator(clock=clock)
        for _ in range(3):
            cloud.strike(Call("list", "myself", clock.monotonic()))
            clock.advance(30)
        assert cloud.calls["list"] == 3
        assert cloud.calls_since(clock.monotonic() - 60)["list"] == 2


class TestFaultTable:
    @staticmethod
    def strikes(table: FaultTable, calls: int, **details: Any) -> list[bool]:
        return [
            table.strike(Call("create", "x", float(at_s), **details)) is not None for at_s in range(calls)
        ]

    def test_a_rule_begins_at_its_nth_call_and_ends_after_its_times(self) -> None:
        table = FaultTable()
        table.add(Fault(operation="create", kind="capacity", nth=2, times=2))
        assert self.strikes(table, 5) == [False, True, True, False, False]

    def test_the_first_rule_that_applies_strikes(self) -> None:
        table = FaultTable()
        table.add(Fault(operation="create", kind="stuck", gpu="a"))
        table.add(Fault(operation="any", kind="reset", times=None))
        struck = [table.strike(Call("create", "x", 0.0, gpu="a")) for _ in range(2)]
        assert [fault.kind for fault in struck if fault] == ["stuck", "reset"]

    def test_chance_is_repeatable(self) -> None:
        def draw(seed: int) -> list[bool]:
            table = FaultTable(seed=seed)
            table.add(Fault(operation="create", kind="reset", times=None, probability=0.5))
            return self.strikes(table, 200)

        assert draw(1) == draw(1) != draw(2)
        assert 60 < sum(draw(1)) < 140

    @pytest.mark.parametrize(
        "nonsense",
        [
            {"operation": "list", "kind": "capacity"},
            {"operation": "any", "kind": "swallow"},
            {"operation": "create", "kind": "mishap"},
            {"operation": "create", "kind": "hang", "secnods": 5},
        ],
    )
    def test_a_rule_that_makes_no_sense_is_refused(self, nonsense: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="validation error"):
            Fault(**nonsense)


class TestAdmin:
    @staticmethod
    async def post(client: aiohttp.ClientSession, served: Served, path: str, body: Any) -> tuple[int, Any]:
        async with client.post(f"{served.admin_base}/{path}", json=body) as response:
            return response.status, await response.json()

    async def test_the_state_and_the_ledger_can_be_read_without_secrets(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession, clock: FakeClock
    ) -> None:
        pod = rent(cloud)
        clock.advance(3600)
        async with client.get(f"{served.admin_base}/state") as response:
            text = await response.text()
        told = json.loads(text)["pods"][0]
        assert (told["id"], told["name"], told["state"]) == (pod.id, "comfy-gw-ann-1", "terminated")
        assert told["last_status_change"].startswith("Terminated by its own agent")
        assert "door" not in text
        async with client.get(f"{served.admin_base}/ledger") as response:
            ledger = await response.json()
        assert ledger["total_usd"] == ledger["rows"][0]["usd"] == pytest.approx(0.69 * 2700 / 3600)

    async def test_faults_are_added_and_forgotten(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        rules = [{"operation": "create", "kind": "capacity"}, {"operation": "list", "kind": "null_list"}]
        assert await self.post(client, served, "faults", rules) == (200, {"rules": 2})
        assert [rule.fault.kind for rule in cloud.faults.rules] == ["capacity", "null_list"]
        assert (await self.post(client, served, "faults", {"operation": "x", "kind": "y"}))[0] == 422
        async with client.delete(f"{served.admin_base}/faults") as response:
            assert response.status == 200
        assert cloud.faults.rules == []

    async def test_delays_hold_for_pods_that_are_made_later(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        old = rent(cloud)
        code, told = await self.post(client, served, "defaults", {"app_ready_s": 7.5})
        assert (code, told["app_ready_s"]) == (200, 7.5)
        assert (old.delays.app_ready_s, rent(cloud).delays.app_ready_s) == (0.0, 7.5)
        assert (await self.post(client, served, "defaults", {"app_ready_s": -1}))[0] == 422

    async def test_a_pod_can_be_tormented(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        path = f"pods/{pod.id}"
        _, told = await self.post(
            client, served, path, {"app_dead": True, "agent_dead": True, "telemetry": [{"gpu_percent": 5}]}
        )
        assert (told["state"], pod.agent_dead, pod.telemetry.step().gpu_percent) == ("up", True, 5.0)
        _, told = await self.post(client, served, path, {"app_dead": False, "delays": {"app_ready_s": 60}})
        assert told["state"] == "up"
        _, told = await self.post(client, served, path, {"kill": True})
        assert told["state"] == "exited"
        _, told = await self.post(client, served, path, {"vanish": True})
        assert told["state"] == "terminated"
        assert (await self.post(client, served, path, {"kil": True}))[0] == 422
        assert (await self.post(client, served, "pods/nosuchpod", {"kill": True}))[0] == 404

    async def test_a_pods_comfyui_can_be_put_into_moods_and_restarted(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        pod = rent(cloud)
        path, door = f"pods/{pod.id}", served.pod_url(pod.id)
        assert (await self.post(client, served, path, {"app_restart": True}))[0] == 200  # nothing ran yet
        async with client.post(
            f"{door}/prompt", json={"prompt": SLEEP, "prompt_id": "p"}, headers=TOKEN
        ) as answer:
            assert answer.status == 200
        assert (await self.post(client, served, path, {"comfy": {"paused": True}, "app_restart": True}))[
            0
        ] == 200
        assert pod.comfy.mood.paused is True
        async with client.get(f"{door}/history", headers=TOKEN) as answer:
            assert await answer.json() == {}
        status, told = await self.post(client, served, path, {"comfy": {"sleepy": True}})
        assert (status, "sleepy" in told["errors"][0]["msg"]) == (422, True)

    async def test_the_clock_can_be_turned_where_it_is_a_dial(
        self, served: Served, cloud: RunPodSimulator, client: aiohttp.ClientSession
    ) -> None:
        before_s = cloud.clock.monotonic()
        assert (await self.post(client, served, "clock", {"advance_s": 60}))[1] == {"now_s": before_s + 60}
        real = RunPodSimulator()
        async with serve(real) as real_served:
            assert (await self.post(client, real_served, "clock", {"advance_s": 60}))[0] == 409


async def test_a_pods_comfyui_can_be_chosen(served: Served, clock: FakeClock) -> None:
    cloud = RunPodSimulator(clock=clock, comfy=lambda name: ComfySimulator(name=f"{name}!", step_s=2.0))
    assert rent(cloud).comfy.name == "comfy-gw-ann-1!"


class TestCommand:
    async def test_it_runs_alone_and_ends_on_sigterm(self, client: aiohttp.ClientSession) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "simulators.runpod", "--port", "0", "--api-key", "k", "--boot-s", "0",
            "--network-volume", "vol1=EU-CZ-1",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(20):
                where = json.loads(await process.stdout.readline())
                query = {"query": "{ myself { networkVolumes { id dataCenterId } } }"}
                async with client.post(
                    f"{where['RUNPOD_API_BASE']}/graphql", json=query, headers={"Authorization": "Bearer k"}
                ) as response:
                    assert (await response.json())["data"]["myself"]["networkVolumes"] == [
                        {"id": "vol1", "dataCenterId": "EU-CZ-1"}
                    ]
                process.send_signal(signal.SIGTERM)
                _, told = await process.communicate()
            assert (process.returncode, told) == (0, b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--boot-s", "-1"], "app_ready_s"),
            (["--model", "x.safetensors"], "FOLDER/NAME is meant"),
            (["--without-node", "SaveImag"], "no such class: SaveImag"),
        ],
    )
    def test_a_wrong_option_ends_with_2_and_says_why(
        self,
        arguments: list[str],
        complaint: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["simulators.runpod", *arguments])
        assert program.main() == 2
        assert complaint in capsys.readouterr().err

    async def test_the_pods_have_what_the_options_say(self) -> None:
        told = ["--newer", "--without-node", "LoadImage", "--model", "loras/a", "--model", "loras/b"]
        cloud = program.make_cloud(program.parser().parse_args([*told, "--agent", "real"]))
        assert rent(cloud).comfy.installation == Installation(
            newer=True, without=frozenset({"LoadImage"}), models={"loras": ("a", "b")}
        )
        assert cloud.agent == "real"


async def test_pods_can_show_a_comfyui_that_runs_elsewhere(tmp_path: Path) -> None:
    elsewhere = ComfySimulator(name="elsewhere", base_dir=tmp_path)
    async with serve_comfy(elsewhere) as comfy, aiohttp.ClientSession() as client:
        borrowed = Borrowed(comfy.url.rstrip("/"), elsewhere.folders)
        cloud = RunPodSimulator(delays=Delays(create_s=0, runtime_s=0, app_ready_s=0), borrowed=borrowed)
        async with serve(cloud) as served:
            pod = rent(cloud)
            url = served.proxy_template.format(pod_id=pod.id, port=8188)
            headers = {"X-Comfy-Gateway-Token": "door"}
            empty = {"width": 8, "height": 8, "batch_size": 1, "color": 1}
            nodes = {
                "1": {"class_type": "EmptyImage", "inputs": empty},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
            }
            async with client.post(f"{url}/prompt", json={"prompt": nodes}, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
    assert len(elsewhere.accepted) == 1
