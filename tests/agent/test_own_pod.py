"""A pod that ends itself, against the simulated RunPod: the ways one by one, and the agent as a process."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent.own_pod import OwnPod
from agent.settings import Pod
from simulators.comfyui import ComfySimulator
from simulators.comfyui import serve as serve_comfyui
from simulators.runpod import Fault, PodOrder, RunPodSimulator, Served, SimPod, serve
from tests.agent.stand import RENEWING, AgentsFakeClock, agent_process, environment
from tests.conditions import wait_for
from tests.contract.loopback import answering

KEY = "pod-scoped-key"


class Impatient(AgentsFakeClock):
    """Whoever sleeps wakes at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@dataclass
class Cloud:
    simulator: RunPodSimulator
    served: Served
    pod: SimPod
    bin: Path
    """A folder for programs."""

    def calls(self) -> list[list[str]]:
        """The arguments of each call of the fake runpodctl."""
        log = self.bin / "calls"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def install_runpodctl(self, *, knows: str = "", code: int = 0) -> None:
        """One that writes down its arguments; those that begin with `knows` end the pod."""
        script = self.bin / "runpodctl"
        script.write_text(
            f"""#!{sys.executable} -IS
import json, os, sys, urllib.request
arguments = sys.argv[1:]
with open(os.path.join({str(self.bin)!r}, "calls"), "a") as log:
    log.write(json.dumps(arguments) + "\\n")
print("the key is " + os.environ.get("RUNPOD_API_KEY", ""))
if {knows!r} and " ".join(arguments).startswith({knows!r}):
    query = 'mutation {{ podTerminate(input: {{podId: "%s"}}) }}' % arguments[-1]
    urllib.request.urlopen(urllib.request.Request(
        {self.served.api_base!r} + "/graphql", json.dumps({{"query": query}}).encode(),
        {{"Authorization": "Bearer {KEY}", "Content-Type": "application/json"}}))
sys.exit({code})
"""
        )
        script.chmod(0o755)


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    simulator = RunPodSimulator(api_key=KEY, enforce_lease=False)
    async with serve(simulator) as served:
        pod = simulator.create(PodOrder(name="comfy-gw-ada-1"))
        yield Cloud(simulator, served, pod, tmp_path / "bin")


async def end(cloud: Cloud, *, key: str | None = KEY, base: str | None = None, command_s: float = 20) -> bool:
    pod = Pod(id=cloud.pod.id, api_key=key, api_base=base or cloud.served.api_base)
    async with aiohttp.ClientSession() as session:
        return await OwnPod(session, pod, Impatient(), command_s=command_s).end()


async def test_without_runpodctl_graphql_ends_the_pod(cloud: Cloud) -> None:
    assert await end(cloud)
    assert cloud.simulator.living() == []


async def test_the_older_runpodctl_is_enough(cloud: Cloud) -> None:
    cloud.install_runpodctl(knows="remove pod")
    assert await end(cloud)
    assert cloud.calls() == [["remove", "pod", cloud.pod.id]]


async def test_the_newer_runpodctl_is_tried_next(cloud: Cloud) -> None:
    cloud.install_runpodctl(knows="pod delete", code=1)
    assert await end(cloud)
    assert cloud.calls() == [["remove", "pod", cloud.pod.id], ["pod", "delete", cloud.pod.id]]


async def test_a_runpodctl_that_says_success_and_did_nothing_is_not_believed(cloud: Cloud) -> None:
    cloud.install_runpodctl()
    assert await end(cloud)
    assert len(cloud.calls()) == 2
    assert cloud.simulator.living() == []


async def test_a_termination_that_was_swallowed_is_not_believed(cloud: Cloud) -> None:
    # both APIs are tried
    cloud.simulator.faults.add(Fault(kind="swallow", operation="terminate", times=2))
    assert not await end(cloud)
    assert cloud.simulator.living() == [cloud.pod]
    assert await end(cloud)


async def test_a_key_without_rights_is_no_success(cloud: Cloud) -> None:
    assert not await end(cloud, key="another-key")
    assert cloud.simulator.living() == [cloud.pod]


async def test_without_a_key_only_runpodctl_is_tried_and_nothing_is_confirmed(cloud: Cloud) -> None:
    cloud.install_runpodctl(knows="remove pod")
    assert not await end(cloud, key=None)
    assert cloud.simulator.living() == []


async def test_an_api_that_never_showed_the_pod_cannot_say_that_it_is_gone(cloud: Cloud) -> None:
    """A key that may not see the pod is told that there is none: every way must be tried all the same."""
    asked = []

    async def api(request: web.Request) -> web.Response:
        asked.append((request.method, request.path))
        return web.json_response({"data": {"pod": None, "podTerminate": None}})

    async with answering(api) as base:
        assert not await end(cloud, base=base)
    assert ("DELETE", f"/v2/pods/{cloud.pod.id}") in asked


async def test_the_rest_api_ends_the_pod_where_graphql_is_retired(cloud: Cloud) -> None:
    is_there = True
    keys = set()

    async def api(request: web.Request) -> web.Response:
        nonlocal is_there
        keys.add(request.headers["Authorization"])
        if request.path == "/graphql":
            return web.json_response({"message": "gone"}, status=410)
        if request.method == "DELETE":
            is_there = False
            return web.Response(status=204)
        if is_there:
            return web.json_response({"id": cloud.pod.id, "status": "RUNNING"})
        return web.json_response({"title": "Not Found", "status": 404}, status=404)

    async with answering(api) as base:
        assert await end(cloud, base=base)
    assert keys == {f"Bearer {KEY}"}


async def test_an_api_that_cannot_be_reached_is_no_success(cloud: Cloud) -> None:
    assert not await end(cloud, base="http://127.0.0.1:9")


async def test_a_runpodctl_that_cannot_be_run_is_passed_over(cloud: Cloud) -> None:
    (cloud.bin / "runpodctl").write_text("#!/no/such/interpreter\n")
    (cloud.bin / "runpodctl").chmod(0o755)
    assert await end(cloud)


async def test_a_runpodctl_that_hangs_is_killed(cloud: Cloud) -> None:
    (cloud.bin / "runpodctl").write_text("#!/bin/sh\nexec sleep 600\n")
    (cloud.bin / "runpodctl").chmod(0o755)
    async with asyncio.timeout(10):
        assert await end(cloud, command_s=0.2)


async def test_the_log_says_what_was_tried_and_never_the_key(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.install_runpodctl()
    await end(cloud)
    assert "runpodctl remove pod" in caplog.text
    assert "podTerminate" in caplog.text
    assert KEY not in caplog.text


async def test_an_id_that_is_none_is_never_used(cloud: Cloud) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="no pod's id"):
            OwnPod(session, Pod(id='x"}) {id', api_key=KEY, api_base="http://x"), Impatient())


# The agent as a process, with terms of seconds.


def in_the_pod(cloud: Cloud, home: Path, **changes: str) -> dict[str, str]:
    return {
        **environment(home),
        "RUNPOD_POD_ID": cloud.pod.id,
        "RUNPOD_API_KEY": KEY,
        "RUNPOD_API_BASE": cloud.served.api_base,
        "AGENT_LEASE_S": "1",
        "AGENT_BOOT_GRACE_S": "2",
        "AGENT_HARD_MAX_S": "5",
        "AGENT_QUEUE_SILENCE_S": "1",
    } | changes


async def age_of(cloud: Cloud) -> float:
    await wait_for(lambda: cloud.pod.ended_at_s is not None, "the pod's end", deadline_s=20)
    assert cloud.pod.ended_at_s is not None
    return cloud.pod.ended_at_s - cloud.pod.created_at_s


async def renew(session: aiohttp.ClientSession, url: str, headers: dict[str, str] = RENEWING) -> int:
    async with session.get(f"{url}/metrics", headers=headers) as response:
        await response.read()
        return response.status


async def test_a_pod_whose_gateway_never_came_ends_itself_and_the_agent_stays(
    cloud: Cloud, home: Path
) -> None:
    async with agent_process(in_the_pod(cloud, home)) as agent, aiohttp.ClientSession() as session:
        began_s = cloud.simulator.clock.monotonic()
        await age_of(cloud)
        assert 1 <= cloud.simulator.clock.monotonic() - began_s <= 2 + 4
        # an agent that exits would have its container started again
        assert await renew(session, agent.url) == 200


async def test_a_pod_lives_while_its_gateway_asks_and_ends_soon_after_it_died(
    cloud: Cloud, home: Path
) -> None:
    async with (
        agent_process(in_the_pod(cloud, home, AGENT_LEASE_S="3")) as agent,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(20):
            assert await renew(session, agent.url) == 200
            await asyncio.sleep(0.25)
        assert cloud.pod.ended_at_s is None
        died_s = cloud.simulator.clock.monotonic()
        await age_of(cloud)
        assert cloud.pod.ended_at_s is not None
        assert 2.5 <= cloud.pod.ended_at_s - died_s <= 3 + 4


async def test_asking_without_the_token_or_without_the_header_holds_no_pod(cloud: Cloud, home: Path) -> None:
    async with agent_process(in_the_pod(cloud, home)) as agent, aiohttp.ClientSession() as session:
        lease = {"X-Comfy-Gateway-Lease": "1"}
        token = {name: value for name, value in RENEWING.items() if name not in lease}
        began_s = cloud.simulator.clock.monotonic()
        while cloud.pod.ended_at_s is None:
            assert await renew(session, agent.url, lease) == 401
            assert await renew(session, agent.url, token) == 200
            assert await renew(session, agent.url, {**token, "X-Comfy-Gateway-Lease": "0"}) == 200
            assert cloud.simulator.clock.monotonic() - began_s < 15
            await asyncio.sleep(0.2)


async def test_unfetched_files_keep_the_pod_until_the_hard_maximum(cloud: Cloud, home: Path) -> None:
    (home / "output/x.png").write_bytes(b"work")
    async with agent_process(in_the_pod(cloud, home)) as agent:
        began_s = cloud.simulator.clock.monotonic()
        await age_of(cloud)
        assert 4 <= cloud.simulator.clock.monotonic() - began_s <= 5 + 4
        assert "nobody fetched" in agent.log


async def test_files_that_are_fetched_let_the_pod_end(cloud: Cloud, home: Path) -> None:
    (home / "output/x.png").write_bytes(b"work")
    environ = in_the_pod(cloud, home, AGENT_HARD_MAX_S="600")
    async with agent_process(environ) as agent, aiohttp.ClientSession() as session:
        await wait_for(lambda: "nobody fetched" in agent.log, "the delay", deadline_s=15)
        token = {"Authorization": RENEWING["Authorization"]}
        async with session.get(f"{agent.url}/files/output/x.png", headers=token) as response:
            assert await response.read() == b"work"
        await age_of(cloud)


async def test_a_busy_comfyui_keeps_the_pod_until_it_is_done(cloud: Cloud, home: Path) -> None:
    simulator = ComfySimulator()
    simulator.mood.paused = True
    async with serve_comfyui(simulator) as comfy, aiohttp.ClientSession() as session:
        prompt = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
                  "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}  # fmt: skip
        async with session.post(f"{comfy.url}prompt", json={"prompt": prompt}) as accepted:
            assert accepted.status == 200
        environ = in_the_pod(cloud, home, COMFYUI_URL=comfy.url, AGENT_HARD_MAX_S="600")
        async with agent_process(environ) as agent:
            await wait_for(lambda: "ComfyUI works" in agent.log, "the delay", deadline_s=15)
            assert cloud.pod.ended_at_s is None
            simulator.mood.paused = False
            await age_of(cloud)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RUNPOD_POD_ID": ""}, "RUNPOD_POD_ID is not set"),
        ({"AUTH_TOKEN": ""}, "without AUTH_TOKEN nobody can tell"),
        ({"AGENT_LEASE_S": "0"}, "AGENT_LEASE_S is 0"),
    ],
)
async def test_where_there_is_no_lease_one_line_says_why(
    cloud: Cloud, home: Path, changes: dict[str, str], said: str
) -> None:
    async with agent_process(in_the_pod(cloud, home, **changes, **{"AGENT_BOOT_GRACE_S": "1"})) as agent:
        assert len([line for line in agent.lines if "No lease" in line and said in line]) == 1
        await asyncio.sleep(1.5)
        assert cloud.simulator.living() == [cloud.pod]


async def test_wrong_settings_are_told_together_and_the_exit_code_is_2(home: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", env=environment(home, AGENT_PORT="x", AGENT_LEASE_S="y"),
        stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 2
    assert len(said.decode().splitlines()) == 2


async def test_a_port_that_is_taken_is_told(home: Path) -> None:
    async def nothing(_: web.Request) -> web.Response:
        return web.Response()

    async with answering(nothing) as taken:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", env=environment(home, AGENT_PORT=taken.rpartition(":")[2]),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        _, said = await process.communicate()
    assert process.returncode == 1
    assert "cannot listen" in said.decode()
