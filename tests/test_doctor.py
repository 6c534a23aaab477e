"""The doctor against real servers: what it finds, how it ends, and that it keeps secrets."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from comfy_gateway.adapters.master_secret import load_or_create
from comfy_gateway.adapters.sql import open_store
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.session import Pod, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.doctor import packages
from comfy_gateway.doctor.__main__ import REQUIREMENTS
from comfy_gateway.doctor.examination import examine
from comfy_gateway.doctor.findings import Finding, Status
from simulators import comfyui
from simulators.comfyui import ComfySimulator
from simulators.runpod import GPU_TYPES, PodOrder, RunPodSimulator, Served, serve
from tests.e2e.gateway_process import ROOT, environment

GPU: Final = "NVIDIA GeForce RTX 4090"
API_KEY: Final = "rpa_A1B2C3D4E5F6G7H8"
SECRETS: Final = {
    "RUNPOD_API_KEY": API_KEY,
    "GATEWAY_SECRET": "a-master-secret-of-more-than-32-characters",
    "POD_ENV_HF_TOKEN": "hf_0123456789abcdef",
}


@dataclass
class World:
    """Simulated servers, and settings with which all is well."""

    root: Path
    duty_url: str
    cloud: RunPodSimulator
    served: Served

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "DUTY_POD_URL": self.duty_url,
            "PORT": "0",
            "GATEWAY_STATE_DIR": str(self.root / "state"),
            "RUNPOD_API_KEY": API_KEY,
            "RUNPOD_API_BASE": self.served.api_base,
            "RUNPOD_IMAGE_NAME": "example/comfyui:1",
            "RUNPOD_GPU_TYPE_ID": GPU,
            "RUNPOD_PROXY_TEMPLATE": self.served.proxy_template,
            "RUNPOD_TELEMETRY_TEMPLATE": self.served.telemetry_url_template,
        } | more

    async def findings(self, **more: str) -> list[Finding]:
        return [finding async for finding in examine(self.environ(**more), root=self.root)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    cloud = RunPodSimulator(api_key=API_KEY)
    async with comfyui.serve(ComfySimulator()) as duty, serve(cloud) as served:
        yield World(tmp_path, duty.url, cloud, served)


def about(findings: list[Finding], subject: str) -> Finding:
    """The one finding whose subject begins so."""
    [found] = [finding for finding in findings if finding.subject.startswith(subject)]
    return found


def failed(findings: list[Finding]) -> list[str]:
    return [finding.subject for finding in findings if finding.status is Status.FAIL]


@dataclass
class Answer:
    """What a run of the command gave."""

    code: int
    stdout: str
    stderr: str


async def doctor(tmp_path: Path, *arguments: str, **settings: str) -> Answer:
    """Run it as run_gateway.sh does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "comfy_gateway.doctor",
        *arguments,
        env=environment({"PYTHONPATH": f"{ROOT / 'addons'}{os.pathsep}{ROOT}"} | settings, tmp_path),
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Answer(process.returncode, stdout.decode(), stderr.decode())


# The command ------------------------------------------------------------------------------------------------


async def test_all_is_well(world: World, tmp_path: Path) -> None:
    answer = await doctor(tmp_path, **world.environ())
    lines = answer.stdout.splitlines()
    assert answer.code == 0, answer.stdout
    assert answer.stderr == ""
    assert {line[:5] for line in lines} <= {"ok   ", "warn ", "skip "}
    assert lines[0].startswith(f"ok   Python {sys.version_info[0]}.{sys.version_info[1]}.")
    assert "ok   settings" in lines
    assert f"ok   GPU {GPU}: $0.69 an hour in SECURE" in lines
    assert [line for line in lines if line.startswith("skip ")] == ["skip agents: no pod of ours lives"]


async def test_each_line_of_json_is_the_same_finding(world: World, tmp_path: Path) -> None:
    answer = await doctor(tmp_path, "--json", **world.environ(DUTY_POD_URL="http://127.0.0.1:9/"))
    findings = [json.loads(line) for line in answer.stdout.splitlines()]
    assert answer.code == 1
    assert all(finding.keys() == {"status", "subject", "text"} for finding in findings)
    assert [finding for finding in findings if finding["status"] == "fail"] == [
        {"status": "fail", "subject": "duty http://127.0.0.1:9", "text": "cannot be connected to (/queue)"}
    ]


async def test_faults_of_settings_are_told_one_a_line_and_end_the_look(tmp_path: Path) -> None:
    answer = await doctor(tmp_path, PORT="eight", RUNPOD_TELEMETRY_PORT="0")
    lines = answer.stdout.splitlines()
    assert answer.code == 1
    assert len([line for line in lines if line.startswith("FAIL settings: ")]) == 3
    assert any(line.startswith("FAIL settings: DUTY_POD_URL is not set") for line in lines)
    assert lines[-1] == "skip everything else: the settings come first"
    assert answer.stderr == ""


async def test_a_missing_package_is_named_without_a_trace(tmp_path: Path, world: World) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'itsdangerous':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "addons"), str(ROOT)])
    answer = await doctor(tmp_path, **world.environ(PYTHONPATH=paths))
    assert answer.code == 1
    assert "FAIL package itsdangerous: 2.2.0 cannot be imported (ModuleNotFoundError)" in answer.stdout
    assert "skip everything else: install the packages first" in answer.stdout
    assert answer.stderr == ""


async def test_help_names_the_option(tmp_path: Path) -> None:
    answer = await doctor(tmp_path, "--help")
    assert answer.code == 0
    assert "--json" in answer.stdout


async def test_no_secret_is_ever_told(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    password = "the-password-of-the-database"
    database = f"postgresql://somebody:{password}@127.0.0.1:9/gateway"
    settings = SECRETS | {"GATEWAY_DATABASE_URL": database}
    secrets = [*SECRETS.values(), password]

    answer = await doctor(tmp_path, **world.environ(**settings))
    assert answer.code == 1
    told = answer.stdout + answer.stderr
    assert not [secret for secret in secrets if secret in told], told

    for key in ("rpa_another-key-that-is-wrong", "two words-of-key"):
        findings = await world.findings(**settings | {"RUNPOD_API_KEY": key})
        assert failed(findings)
        lines = "\n".join(text for finding in findings for text in (finding.line(), finding.json()))
        told = "".join((lines, *capfd.readouterr(), caplog.text))
        assert not [secret for secret in (*secrets, *key.split()) if secret in told], told


# Packages ---------------------------------------------------------------------------------------------------


def test_every_package_of_the_requirements_can_be_imported_here() -> None:
    findings = list(packages.dependencies(REQUIREMENTS))
    assert not [finding for finding in findings if finding.status is Status.FAIL]
    assert packages.pins(REQUIREMENTS)["mitmproxy"] == ["12.2.3"]
    assert len(packages.pins(REQUIREMENTS)["pydantic"]) == 2


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        ("aiohttp==1.0.0", Status.WARN, "tested was 1.0.0"),
        ("mitmproxy==11.1.0", Status.FAIL, "11.1.0 is needed"),
        ("no-such-package-anywhere==3.1", Status.FAIL, "is not installed; 3.1 is needed"),
    ],
    ids=["another version", "another mitmproxy", "missing"],
)
def test_a_package_that_is_not_as_it_should_be(tmp_path: Path, line: str, status: Status, text: str) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"# what is needed\n{line} ; python_version >= '3'\n")
    [finding] = packages.dependencies(requirements)
    assert finding.status is status
    assert text in finding.text


def test_without_a_list_of_requirements_packages_are_not_judged(tmp_path: Path) -> None:
    [finding] = packages.dependencies(tmp_path / "requirements.txt")
    assert finding.status is Status.SKIP


# State and port ---------------------------------------------------------------------------------------------


async def test_the_state_folder_is_made_as_a_start_makes_it(world: World) -> None:
    findings = await world.findings()
    state = world.root / "state"
    assert about(findings, "state folder").text == "can be written, mode 0700"
    assert (state / "secrets" / "master.key").stat().st_mode & 0o777 == 0o600
    assert about(findings, "database (sqlite)").status is Status.OK
    assert {path.name for path in state.iterdir()} >= {"gateway.db", "secrets"}


async def test_a_state_folder_that_others_can_read_is_warned_about(world: World) -> None:
    (world.root / "state").mkdir(mode=0o755)
    (world.root / "state").chmod(0o755)
    found = about(await world.findings(), "state folder")
    assert found.status is Status.WARN
    assert "0755" in found.text


async def test_a_state_folder_that_is_a_file_fails(world: World) -> None:
    (world.root / "state").write_text("")
    findings = await world.findings()
    assert about(findings, "state folder").status is Status.FAIL
    assert about(findings, "database").status is Status.FAIL
    assert about(findings, "agents").status is Status.SKIP


async def test_a_database_that_is_none_fails(world: World) -> None:
    (world.root / "state").mkdir(mode=0o700)
    (world.root / "state" / "gateway.db").write_bytes(b"this is no database" * 100)
    assert failed(await world.findings()) == ["database (sqlite)"]


async def test_a_port_that_something_else_has_fails(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        # It takes the question whether it is a gateway, and never answers.
        found = about(await world.findings(PORT=port), f"port {port}")
    assert found.status is Status.FAIL
    assert "PORT" in found.text


async def test_a_misspelt_setting_is_warned_about(world: World) -> None:
    findings = await world.findings(RUNPOD_PROXI_PORT="1")
    [found] = [one for one in findings if one.subject == "settings" and one.status is Status.WARN]
    assert found.text.startswith("RUNPOD_PROXI_PORT")


# Shared servers ---------------------------------------------------------------------------------------------


async def test_a_duty_server_tells_its_speed_and_versions(world: World) -> None:
    found = about(await world.findings(), "duty")
    assert found.status is Status.OK
    assert found.text.endswith("ms, ComfyUI 0.3.64, front end 1.27.10, 0 prompts in its queue")


async def test_each_dead_duty_server_fails(world: World) -> None:
    findings = await world.findings(DUTY_POD_URL=f"{world.duty_url},http://127.0.0.1:9/comfy/")
    assert failed(findings) == ["duty http://127.0.0.1:9/comfy"]


async def test_what_answers_but_is_no_comfyui_is_no_duty_server(world: World) -> None:
    findings = await world.findings(DUTY_POD_URL=world.served.api_base)
    assert failed(findings) == [f"duty {world.served.api_base}"]
    assert about(findings, "duty").text == "answered 404 (/queue)"


# RunPod -----------------------------------------------------------------------------------------------------


async def test_without_a_key_runpod_is_skipped(world: World) -> None:
    findings = await world.findings(RUNPOD_API_KEY="")
    assert failed(findings) == []
    assert about(findings, "RunPod").status is Status.SKIP
    assert not [finding for finding in findings if finding.subject.startswith(("GPU", "agent"))]
    assert world.cloud.calls == {}


async def test_a_key_that_is_refused_fails_and_prices_are_not_asked(world: World) -> None:
    findings = await world.findings(RUNPOD_API_KEY="rpa_another-key")
    assert failed(findings) == ["RunPod API key"]
    assert about(findings, f"GPU {GPU}").status is Status.SKIP


async def test_a_runpod_that_does_not_answer_fails(world: World) -> None:
    findings = await world.findings(RUNPOD_API_BASE="http://127.0.0.1:9")
    assert failed(findings) == ["RunPod API key"]


async def test_the_end_of_the_old_api_fails_and_names_the_setting_with_which_all_is_well(
    world: World,
) -> None:
    world.cloud.retired = True
    findings = await world.findings()
    assert failed(findings) == ["RunPod API key"]
    assert "set RUNPOD_API=v2" in about(findings, "RunPod API key").text
    findings = await world.findings(RUNPOD_API="v2")
    assert failed(findings) == []
    assert "$0.69 an hour" in about(findings, f"GPU {GPU}").text


async def test_what_v2_cannot_be_told_is_a_fault_of_settings(world: World) -> None:
    extra = '{"min_vcpu_count": 8}'
    assert failed(await world.findings(RUNPOD_EXTRA_PAYLOAD=extra)) == []
    findings = await world.findings(RUNPOD_EXTRA_PAYLOAD=extra, RUNPOD_API="v2")
    assert "min_vcpu_count" in about(findings, "settings").text


async def test_a_gpu_type_that_runpod_does_not_know_fails(world: World) -> None:
    findings = await world.findings(RUNPOD_GPU_TYPE_ID=f"{GPU},NVIDIA RTX 9090")
    assert failed(findings) == ["GPU NVIDIA RTX 9090"]


async def test_a_gpu_dearer_than_the_budget_is_warned_about(world: World) -> None:
    found = about(await world.findings(BUDGET_HOURLY_USD="0.5"), f"GPU {GPU}")
    assert found.status is Status.WARN
    assert "BUDGET_HOURLY_USD=0.5" in found.text


async def test_what_only_the_adapter_can_judge_is_a_fault_of_settings(world: World) -> None:
    findings = await world.findings(RUNPOD_EXTRA_PAYLOAD='{"min_memory_in_gb": "a lot\\"}"}')
    assert failed(findings) == ["settings"]


async def test_a_bad_template_is_a_fault_of_settings(world: World) -> None:
    findings = await world.findings(RUNPOD_PROXY_TEMPLATE="https://proxy.example/{port}")
    assert failed(findings) == ["settings"]
    assert "RUNPOD_PROXY_TEMPLATE" in findings[0].text


async def test_one_address_for_comfyui_and_agent_is_warned_about(world: World) -> None:
    template = "https://{pod_id}.proxy.example"
    findings = await world.findings(RUNPOD_PROXY_TEMPLATE=template, RUNPOD_TELEMETRY_TEMPLATE=template)
    assert about(findings, "pod addresses").status is Status.WARN


# Pods -------------------------------------------------------------------------------------------------------


async def living_pod(world: World, *, token: str | None = None) -> str:
    """A pod that the store knows as alice's, with its own agent token unless told otherwise; returns its name."""
    name = "comfy-gw-alice1-a1"
    state = world.root / "state"
    keys = Keys(load_or_create(state))
    env = {"AUTH_TOKEN": token or keys.agent_token(name)}
    pod = world.cloud.create(PodOrder(name=name, env=env, ports="8188/http,8000/http", gpu=GPU_TYPES[0]))
    now = datetime(2026, 11, 1, tzinfo=UTC)
    store = await open_store(f"sqlite+aiosqlite:///{state}/gateway.db")
    try:
        await store.save_session(
            Session(UserId.from_key("named:alice"), State.READY, now, Pod(name, "a1", now, pod.id))
        )
    finally:
        await store.aclose()
    return name


async def test_the_agent_of_a_living_pod_is_asked_with_its_token(world: World) -> None:
    name = await living_pod(world)
    findings = await world.findings()
    assert about(findings, f"agent of pod {name}").text == "GPU at 0 %, queue empty"
    assert failed(findings) == []
    assert about(findings, "RunPod API key").text == "accepted; 1 pod, 1 of them ours (comfy-gw-…)"
    assert about(findings, "database").text.endswith("1 session not on duty")


async def test_an_agent_that_refuses_our_token_fails(world: World) -> None:
    name = await living_pod(world, token="another")
    findings = await world.findings()
    assert failed(findings) == [f"agent of pod {name}"]
    assert about(findings, "agent").text == "the agent answered 401"


async def test_pods_of_ours_that_no_session_knows_are_named_and_left_alone(world: World) -> None:
    for name in ("comfy-gw-a1-b2", "comfy-gw-eu-a1-b2", "somebody"):
        world.cloud.create(PodOrder(name=name))
    findings = await world.findings()
    assert about(findings, "RunPod API key").text == "accepted; 3 pods, 1 of them ours (comfy-gw-…)"
    assert about(findings, "pod comfy-gw-a1-b2").status is Status.WARN
    assert len(world.cloud.living()) == 3
