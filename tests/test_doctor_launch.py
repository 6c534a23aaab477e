"""`doctor --launch` against the simulated RunPod: whatever happens, no pod is left, and all of it is told."""

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.doctor.findings import Finding, Status
from comfy_gateway.doctor.launch import launch, offers_of, question
from comfy_gateway.doctor.trial import Patience
from comfy_gateway.settings import load
from simulators import comfyui
from simulators.comfyui import ComfySimulator
from simulators.runpod import AMBIGUOUS_TEXT, Delays, Fault, PodOrder, RunPodSimulator, Served, serve
from tests.conditions import wait_for
from tests.e2e.gateway_process import ROOT, environment
from tests.test_doctor import doctor

GPU: Final = "NVIDIA GeForce RTX 4090"
API_KEY: Final = "rpa_A1B2C3D4E5F6G7H8"
QUICK: Final = Patience(lease_s=1, own_end_s=8.0, look_s=0.1, lost_looks=2, end_within_s=20.0)
NO_OWN_END: Final = Patience(lease_s=600, own_end_s=0.2, look_s=0.1, lost_looks=2, end_within_s=20.0)


class HurriedClock(SystemClock):
    """Tells the real time, and naps instead of sleeping: the simulated cloud needs no patience."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))


@dataclass
class Account:
    """A simulated RunPod, and what a trial on it has told."""

    root: Path
    cloud: RunPodSimulator
    served: Served
    told: list[Finding] = field(default_factory=list)

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "DUTY_POD_URL": "http://127.0.0.1:9/",
            "PORT": "0",
            "GATEWAY_STATE_DIR": str(self.root / "state"),
            "RUNPOD_API_KEY": API_KEY,
            "RUNPOD_API_BASE": self.served.api_base,
            "RUNPOD_IMAGE_NAME": "example/comfyui:1",
            "RUNPOD_GPU_TYPE_ID": GPU,
            "RUNPOD_PROXY_TEMPLATE": self.served.proxy_template,
            "RUNPOD_TELEMETRY_TEMPLATE": self.served.telemetry_url_template,
            "RUNPOD_STARTUP_POLL_S": "0.05",
            "RUNPOD_STARTUP_TIMEOUT_S": "5",
            "RUNPOD_AGENT_WAIT_S": "0.3",
            "HEALTH_TIMEOUT_S": "5",
        } | more

    async def launch(self, patience: Patience = NO_OWN_END, **settings: str) -> bool:
        """What the command does after the question; in the end nothing of ours may live."""
        told = load(self.environ(**settings), root=self.root)
        offers = await offers_of(told, self.told.append)
        is_through = (
            await launch(told, offers, self.told.append, patience, HurriedClock()) if offers else True
        )
        assert [pod for pod in self.cloud.living() if pod.name.startswith("comfy-gw-")] == []
        return is_through

    def about(self, subject: str) -> Finding:
        """The last finding about it."""
        return [finding for finding in self.told if finding.subject == subject][-1]

    @property
    def failed(self) -> list[str]:
        return [finding.subject for finding in self.told if finding.status is Status.FAIL]


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    cloud = RunPodSimulator(
        api_key=API_KEY, delays=Delays(runtime_s=0.1, app_ready_s=0.2, agent_ready_s=0.15)
    )
    async with serve(cloud) as served:
        yield Account(tmp_path, cloud, served)


@pytest.mark.parametrize("api", ["sdk", "v2"])
async def test_a_pod_is_bought_looked_at_ends_itself_and_its_cost_is_told(account: Account, api: str) -> None:
    others = account.cloud.create(PodOrder(name="somebody-elses"))
    assert await account.launch(QUICK, RUNPOD_API=api)
    subjects = [finding.subject for finding in account.told if finding.subject != "machine"]
    assert subjects == [
        *("balance before", "bought"),
        *sorted(["ComfyUI", "agent"], key=subjects.index),
        *("front door", "events", "the pod's own end", "end", "cost", "balance after"),
    ]
    assert {finding.status for finding in account.told} <= {Status.OK, Status.SKIP}
    assert "$0.69 an hour" in account.about("cost").text
    balance = account.about("balance after")
    if api == "sdk":
        assert balance.text == f"${account.cloud.balance_usd():.2f}"
    else:
        assert balance.status is Status.SKIP
    assert account.cloud.living() == [others]
    [pod] = [pod for pod in account.cloud.pods.values() if pod is not others]
    assert pod.events[-1].status_change.startswith("Terminated by its own agent")
    text = "".join(finding.line() for finding in account.told)
    assert not [secret for secret in (API_KEY, *pod.env.values()) if len(secret) > 9 and secret in text]


async def test_a_pod_that_does_not_end_itself_is_ended_and_that_is_said(account: Account) -> None:
    assert await account.launch()
    assert account.about("the pod's own end").status is Status.WARN
    assert account.about("end").status is Status.OK
    [pod] = account.cloud.pods.values()
    assert pod.events[-1].status_change.startswith("Terminated by user")


async def test_the_next_candidate_is_tried_when_the_first_is_sold_out(account: Account) -> None:
    account.cloud.stock[GPU] = "NONE"
    assert await account.launch(RUNPOD_GPU_TYPE_ID=f"{GPU},NVIDIA L40S")
    assert "NVIDIA L40S" in account.about("bought").text
    assert "$0.86 an hour" in account.about("cost").text


async def test_when_all_is_sold_out_nothing_is_bought(account: Account) -> None:
    account.cloud.stock[GPU] = "NONE"
    assert await account.launch()
    assert account.failed == ["trial"]
    assert account.about("end").text == "nothing was bought"
    assert account.cloud.pods == {}


async def test_a_key_that_may_look_but_not_buy_is_said(account: Account) -> None:
    account.cloud.faults.add(Fault(operation="create", kind="unauthorized"))
    assert await account.launch(RUNPOD_API="v2")
    assert "refuses the API key" in account.about("trial").text
    assert account.about("end").text == "nothing was bought"


async def test_a_front_door_that_has_gone_is_told(account: Account) -> None:
    """ComfyUI answers once and dies."""

    async def die_when_it_was_heard() -> None:
        await wait_for(lambda: any(told.subject == "ComfyUI" for told in account.told), "ComfyUI being heard")
        account.cloud.kill_app(account.cloud.living()[0].id)

    account.cloud.delays = Delays(agent_ready_s=1000)
    await asyncio.gather(account.launch(), die_when_it_was_heard())
    assert account.about("front door").status is Status.WARN
    assert account.failed == ["events"]
    assert account.about("end").status is Status.OK


@pytest.mark.parametrize("kind", ["commit_error", "commit_reset"])
async def test_a_pod_whose_order_was_not_answered_is_found_and_ended(account: Account, kind: Any) -> None:
    account.cloud.faults.add(Fault(operation="create", kind=kind))
    assert await account.launch()
    assert account.about("ComfyUI").status is Status.OK
    assert len(account.cloud.pods) == 1


async def test_an_order_that_made_nothing_costs_nothing(account: Account) -> None:
    account.cloud.faults.add(Fault(operation="create", kind="errors", text=AMBIGUOUS_TEXT))
    account.cloud.faults.add(Fault(operation="list", kind="null_list"))
    assert await account.launch()
    assert account.failed == ["trial"]
    assert account.about("cost").text == "no pod was made"


async def test_of_two_pods_for_one_order_none_is_left(account: Account) -> None:
    account.cloud.faults.add(Fault(operation="create", kind="duplicate"))
    assert await account.launch()
    assert len(account.cloud.pods) == 2


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(operation="create", kind="stuck"), "ComfyUI does not answer"),
        (
            Fault(operation="create", kind="exit_after", seconds=0.05),
            "does not run any more: Exited by Runpod",
        ),
    ],
    ids=["stuck", "exited"],
)
async def test_a_pod_that_does_not_come_up_is_ended(account: Account, fault: Fault, text: str) -> None:
    account.cloud.faults.add(fault)
    assert await account.launch(RUNPOD_STARTUP_TIMEOUT_S="0.5", RUNPOD_STARTUP_MAX_S="0.5")
    assert account.failed == ["trial"]
    assert text in account.about("trial").text
    assert account.about("end").status is Status.OK


async def test_a_termination_that_is_swallowed_is_asked_for_again(account: Account) -> None:
    account.cloud.faults.add(Fault(operation="terminate", kind="swallow"))
    assert await account.launch()
    assert account.about("end").status is Status.OK


async def test_a_pod_that_cannot_be_ended_in_time_is_named(account: Account) -> None:
    account.cloud.faults.add(Fault(operation="terminate", kind="swallow", times=None))
    account.cloud.enforce_lease = False
    told = load(account.environ(), root=account.root)
    offers = await offers_of(told, account.told.append)
    impatient = Patience(lease_s=600, own_end_s=0.1, look_s=0.1, end_within_s=0.5)
    await launch(told, offers, account.told.append, impatient, HurriedClock())
    [pod] = account.cloud.living()
    assert account.failed == ["end"]
    assert pod.name in account.about("end").text
    assert pod.id in account.about("end").text


async def test_a_pod_without_an_agent_is_looked_at_all_the_same(account: Account) -> None:
    account.cloud.delays = Delays(agent_ready_s=1000)
    assert await account.launch()
    assert account.about("agent").status is Status.WARN
    assert account.about("the pod's own end").status is Status.SKIP


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_a_front_door_that_stands_open_is_told(account: Account, is_allowed: bool) -> None:
    account.cloud.delays = Delays(app_ready_s=1000)

    async def open_the_door() -> None:
        [pod] = await wait_for(account.cloud.living, "the pod")
        pod.is_open, pod.delays = True, Delays()

    await asyncio.gather(account.launch(POD_ALLOW_OPEN=str(int(is_allowed))), open_the_door())
    assert account.about("front door").status is (Status.WARN if is_allowed else Status.FAIL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interruption_ends_the_pod(account: Account, number: signal.Signals) -> None:
    account.cloud.delays = Delays(app_ready_s=1000)

    async def interrupt() -> None:
        await wait_for(account.cloud.living, "the pod")
        account.cloud.faults.add(Fault(operation="terminate", kind="slow", seconds=0.2))
        os.kill(os.getpid(), number)
        await wait_for(lambda: account.cloud.calls["terminate"], "the end being asked for")
        os.kill(os.getpid(), number)

    is_through, _ = await asyncio.gather(account.launch(), interrupt())
    assert not is_through
    assert account.about("end").status is Status.OK
    assert [finding.text for finding in account.told if finding.subject == "interrupted"] == [
        "ending the pod",
        "the pod is being ended, and only then this ends",
    ]


@pytest.mark.parametrize("api", ["sdk", "v2"])
async def test_an_interruption_while_the_order_is_under_way_leaves_nothing(
    account: Account, api: str
) -> None:
    account.cloud.delays = Delays(create_s=0.2)
    patience = replace(NO_OWN_END, lost_looks=40)

    async def interrupt() -> None:
        await wait_for(lambda: account.cloud.calls["create"], "the order")
        os.kill(os.getpid(), signal.SIGINT)

    is_through, _ = await asyncio.gather(account.launch(patience, RUNPOD_API=api), interrupt())
    assert not is_through
    assert len(account.cloud.pods) == 1, "the order was carried out all the same"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"RUNPOD_API_KEY": ""}, "no account"),
        ({"RUNPOD_GPU_TYPE_ID": "NVIDIA Potato"}, "no price"),
        ({"BUDGET_HOURLY_USD": "0.5"}, "over BUDGET_HOURLY_USD"),
        ({"RUNPOD_API_KEY": "rpa_another"}, "refuses the API key"),
    ],
)
async def test_without_an_offer_nothing_is_bought(
    account: Account, settings: dict[str, Any], text: str
) -> None:
    assert await account.launch(**settings)
    assert account.failed == ["trial"]
    assert text in account.about("trial").text
    assert account.cloud.calls["create"] == 0


async def test_the_question_says_every_price_and_the_most_that_it_can_cost(account: Account) -> None:
    told = load(
        account.environ(
            RUNPOD_GPU_TYPE_ID=f"{GPU},NVIDIA L40S", RUNPOD_REGION="EU-RO-1", RUNPOD_STARTUP_MAX_S="3600"
        ),
        root=account.root,
    )
    asked = question(await offers_of(told, account.told.append), told)
    assert f"{GPU} (SECURE, EU-RO-1) at $0.69 an hour, else NVIDIA L40S (SECURE, EU-RO-1) at $0.86" in asked
    assert "at most $0.92" in asked


async def test_a_pod_that_only_stops_is_told_from_one_that_is_gone(account: Account) -> None:
    account.cloud.faults.add(Fault(operation="create", kind="exit_after", seconds=1.0))
    assert await account.launch(replace(NO_OWN_END, own_end_s=10.0))
    assert "its disk still costs" in account.about("the pod's own end").text
    assert account.about("end").status is Status.OK


async def test_questions_that_are_not_answered_are_asked_again(account: Account) -> None:
    account.cloud.delays = Delays(app_ready_s=1000)
    account.cloud.faults.add(Fault(operation="get", kind="errors", times=2))
    account.cloud.faults.add(Fault(operation="user", kind="errors"))

    async def be_ready_when_the_machine_was_told() -> None:
        await wait_for(
            lambda: any(
                finding.subject == "machine" and finding.status is Status.OK for finding in account.told
            ),
            "the machine being told",
        )
        account.cloud.living()[0].delays = Delays()

    await asyncio.gather(account.launch(RUNPOD_STARTUP_TIMEOUT_S="30"), be_ready_when_the_machine_was_told())
    assert account.about("machine").status is Status.OK
    assert Status.WARN in {finding.status for finding in account.told if finding.subject == "machine"}
    assert account.about("balance before").status is Status.WARN
    assert account.failed == []


# The command ------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_where_nobody_can_be_asked_nothing_is_bought(account: Account, tmp_path: Path) -> None:
    async with comfyui.serve(ComfySimulator()) as duty:
        answer = await doctor(tmp_path, "--launch", **account.environ(DUTY_POD_URL=duty.url))
    assert answer.code == 1
    assert "$0.69 an hour" in answer.stdout
    assert "--yes buys without asking" in answer.stdout
    assert account.cloud.calls["create"] == 0


@pytest.mark.long
async def test_with_something_wrong_nothing_is_bought(account: Account, tmp_path: Path) -> None:
    answer = await doctor(tmp_path, "--launch", "--yes", **account.environ())
    assert answer.code == 1
    assert "skip trial: nothing is bought before all of the above is right" in answer.stdout
    assert account.cloud.calls["create"] == 0


async def test_yes_alone_makes_no_sense(tmp_path: Path) -> None:
    answer = await doctor(tmp_path, "--yes")
    assert (answer.code, answer.stdout) == (2, "")
    assert "--launch" in answer.stderr


@pytest.mark.parametrize(
    ("reply", "is_bought"), [pytest.param("n", False, marks=pytest.mark.long), ("y", True)]
)
async def test_a_person_is_asked_and_ctrl_c_ends_what_was_bought(
    account: Account, tmp_path: Path, reply: str, is_bought: bool
) -> None:
    account.cloud.delays = Delays(app_ready_s=1000)
    ours, theirs = pty.openpty()
    async with comfyui.serve(ComfySimulator()) as duty:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "comfy_gateway.doctor", "--launch"),
            env=environment(
                {"PYTHONPATH": f"{ROOT / 'addons'}{os.pathsep}{ROOT}"}
                | account.environ(DUTY_POD_URL=duty.url),
                tmp_path,
            ),
            cwd=tmp_path,
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(60):
                asked = await process.stderr.readuntil(b"[y/N]")
            os.write(ours, f"{reply}\n".encode())
            if is_bought:
                await wait_for(account.cloud.living, "the pod", deadline_s=30)
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(60):
                stdout, _ = await process.communicate()
        finally:
            os.close(ours)
            os.close(theirs)
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert b"$0.69 an hour" in asked
    assert process.returncode == (130 if is_bought else 0), stdout
    assert (len(account.cloud.pods), account.cloud.living()) == (int(is_bought), [])
    assert (b"ok   cost: $" in stdout) == is_bought
