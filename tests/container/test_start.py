"""start.sh and what it runs, as processes: restarts, the end, secrets, models, and settings that are wrong."""

import asyncio
import hashlib
import json
import signal
import stat
import subprocess
import time
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from tests.conditions import wait_for, wait_for_blocking
from tests.container.pod import (
    AGENT_TOKEN,
    CONTAINER,
    END_WITHIN_S,
    GUARDED,
    ROOT,
    SIMULATOR,
    TOKEN,
    PodProcess,
    run_start,
    running_pod,
)
from tests.programs import require_program


async def status(url: str, headers: dict[str, str] | None = None) -> int:
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return answer.status


def killed(pod: PodProcess, words: str) -> psutil.Process:
    """The first process with these words in its command line, killed as by the kernel for want of memory."""
    process = wait_for_blocking(lambda: pod.running(words), f"a process {words}")[0]
    process.send_signal(signal.SIGKILL)
    process.wait(5)
    return process


@pytest.mark.parametrize(
    ("words", "port"),
    [
        ("-m simulators.comfyui", "COMFYUI_PORT"),
        ("nginx: master", "FRONT_DOOR_PORT"),
        ("-m agent", "AGENT_PORT"),
    ],
)
def test_a_program_that_is_killed_is_back_within_5_s(tmp_path: Path, words: str, port: str) -> None:
    with running_pod(tmp_path) as pod:
        dead = killed(pod, words)
        started = time.monotonic()
        back = wait_for_blocking(
            lambda: [one for one in pod.running(words) if one.pid != dead.pid], f"{words} again", deadline_s=5
        )
        pod.wait_for_port(port, within_s=5 - (time.monotonic() - started))
        assert back[0].pid != dead.pid


def test_sigterm_ends_everything_within_10_s(tmp_path: Path) -> None:
    with running_pod(tmp_path) as pod:
        assert len(pod.processes()) >= 7  # supervisord, three programs, their three loggers
        started = time.monotonic()
        assert pod.stop() == 0
        assert time.monotonic() - started < END_WITHIN_S
        wait_for_blocking(lambda: not pod.processes(), f"no process left of {pod.processes()}", deadline_s=1)


def test_a_comfyui_that_ignores_sigterm_is_gone_within_10_s_too(tmp_path: Path) -> None:
    stubborn = """bash -c 'trap "" TERM; echo stubborn; while :; do sleep 0.1; done'"""
    with running_pod(tmp_path, ready=False, COMFYUI_COMMAND=stubborn) as pod:
        pod.wait_for_line("[comfyui] stubborn")
        started = time.monotonic()
        pod.stop()
        assert time.monotonic() - started < END_WITHIN_S
        wait_for_blocking(lambda: not pod.processes(), f"no process left of {pod.processes()}", deadline_s=1)


def test_a_comfyui_that_cannot_start_is_tried_again_and_the_pod_lives_on(tmp_path: Path) -> None:
    with running_pod(tmp_path, ready=False, COMFYUI_COMMAND="bash -c 'echo no luck; exit 7'") as pod:
        pod.wait_for_door()
        pod.wait_for_port("AGENT_PORT")
        wait_for_blocking(lambda: pod.log.count("[comfyui] no luck") >= 3, "the third attempt", deadline_s=15)
        assert pod.process.poll() is None


def test_each_line_of_the_log_bears_the_name_of_its_program(tmp_path: Path) -> None:
    with running_pod(tmp_path) as pod:
        pod.wait_for_line("[comfyui] ComfyUI simulator duty")
        pod.wait_for_line("[agent] ")
        pod.wait_for_line("[start] front door (guarded)")
        kept = Path(pod.env["RUN_DIR"], "comfyui/comfyui.log").read_text()
        assert kept.startswith("ComfyUI simulator duty")


async def test_the_agent_tells_of_this_comfyui_and_gives_its_log(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {AGENT_TOKEN}"}
    with running_pod(tmp_path) as pod:
        assert await status(f"{pod.agent_url}/metrics") == 401
        pod.wait_for_line("[comfyui] ComfyUI simulator")
        async with aiohttp.ClientSession(headers=bearer) as client:

            async def queue() -> object:
                async with client.get(f"{pod.agent_url}/metrics") as answer:
                    return (await answer.json())["comfyui"]

            told = await wait_for(queue, "a sample in which ComfyUI answers")
            assert told == {"queue_running": 0, "queue_pending": 0}
            async with client.get(f"{pod.agent_url}/logs") as answer:
                assert "ComfyUI simulator duty" in await answer.text()


async def test_no_secret_is_in_a_log_a_command_line_or_a_file(tmp_path: Path) -> None:
    with running_pod(tmp_path) as pod:
        assert await status(f"{pod.door_url}/queue?token={TOKEN[:9]}", GUARDED) == 200
        assert await status(f"{pod.door_url}/queue", {"X-Comfy-Gateway-Token": TOKEN[:-1]}) == 401
        pod.wait_for_line("[front_door] GET /queue 401")
        command_lines = [" ".join(process.cmdline()) for process in pod.processes()]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        texts = [pod.log, *command_lines, *(path.read_bytes().decode("latin-1") for path in files)]
        for secret in (TOKEN, AGENT_TOKEN, TOKEN[:9]):
            assert not [text for text in texts if secret in text]
        door = Path(pod.env["RUN_DIR"], "front_door")
        assert stat.S_IMODE((door / "nginx.conf").stat().st_mode) == 0o600
        assert stat.S_IMODE(door.stat().st_mode) == 0o700


def test_custom_nodes_get_none_of_the_pods_secrets(tmp_path: Path) -> None:
    told = tmp_path / "environment"
    command = f"env >{told}.part && mv {told}.part {told} && {SIMULATOR}"
    command = f"bash -c '{command}'"
    with running_pod(
        tmp_path, ready=False, COMFYUI_COMMAND=command, RUNPOD_API_KEY="pod-scoped", HF_TOKEN="own"
    ) as pod:
        wait_for_blocking(told.exists, "ComfyUI's environment")
        names = {line.split("=")[0] for line in told.read_text().splitlines()}
        assert not names & {"GATEWAY_POD_TOKEN", "AUTH_TOKEN", "RUNPOD_API_KEY"}
        assert "HF_TOKEN" in names  # theirs: nodes fetch models with it
        # Nor does the first process keep the door's token, nor nginx any.
        assert all(TOKEN not in process.environ().values() for process in pod.processes())
        nginx = wait_for_blocking(lambda: pod.running("nginx: master"), "nginx")[0]
        assert AGENT_TOKEN not in nginx.environ().values()


async def test_without_its_token_the_front_door_stays_closed(tmp_path: Path) -> None:
    with running_pod(tmp_path, GATEWAY_POD_TOKEN="") as pod:
        for headers in (None, GUARDED, {"X-Comfy-Gateway-Token": ""}):
            assert await status(f"{pod.door_url}/queue", headers) == 503
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{pod.comfyui_url}/_sim/requests") as answer,
        ):
            assert "/queue" not in [seen["path"] for seen in await answer.json()]  # the agent asks too
        pod.wait_for_line("WARNING: GATEWAY_POD_TOKEN is not set: the front door stays closed")


async def test_pod_allow_open_opens_the_door_with_a_loud_warning(tmp_path: Path) -> None:
    with running_pod(tmp_path, GATEWAY_POD_TOKEN="", AUTH_TOKEN="", POD_ALLOW_OPEN="1") as pod:
        assert await status(f"{pod.door_url}/queue") == 200
        assert await status(f"{pod.agent_url}/metrics") == 200
        pod.wait_for_line("WARNING: GATEWAY_POD_TOKEN is not set and POD_ALLOW_OPEN=1")
        pod.wait_for_line("WARNING: AUTH_TOKEN is not set and POD_ALLOW_OPEN=1")


async def test_a_token_counts_although_open_is_allowed(tmp_path: Path) -> None:
    with running_pod(tmp_path, POD_ALLOW_OPEN="1") as pod:
        assert await status(f"{pod.door_url}/queue") == 401
        assert await status(f"{pod.agent_url}/metrics") == 401


async def test_without_auth_token_the_agent_answers_nobody(tmp_path: Path) -> None:
    with running_pod(tmp_path, AUTH_TOKEN="") as pod:
        for headers in (None, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {AGENT_TOKEN}"}):
            assert await status(f"{pod.agent_url}/metrics", headers) == 401
        assert await status(f"{pod.agent_url}/healthz") == 200


async def test_models_come_before_comfyui_where_they_are_to_be_first(tmp_path: Path) -> None:
    go, runs = tmp_path / "go", tmp_path / "runs"
    command = f"bash -c 'echo run >>{runs}; until [ -e {go} ]; do sleep 0.05; done'"
    with running_pod(tmp_path, ready=False, MODEL_SYNC="first", MODEL_SYNC_COMMAND=command) as pod:
        pod.wait_for_door()
        pod.wait_for_port("AGENT_PORT")
        wait_for_blocking(runs.exists, "model_sync")
        assert await status(f"{pod.door_url}/queue", GUARDED) == 502
        assert not pod.running("simulators.comfyui")
        go.touch()
        pod.wait_for_port("COMFYUI_PORT")
        killed(pod, "-m simulators.comfyui")
        pod.wait_for_port("COMFYUI_PORT", within_s=5)
        assert runs.read_text() == "run\n"  # not again with each restart of ComfyUI


async def test_models_come_beside_comfyui_otherwise(tmp_path: Path) -> None:
    command = "bash -c 'echo fetching; sleep 1000'"
    with running_pod(tmp_path, MODEL_SYNC="background", MODEL_SYNC_COMMAND=command) as pod:
        assert await status(f"{pod.door_url}/queue", GUARDED) == 200
        pod.wait_for_line("[model_sync] fetching")
        assert pod.running("sleep 1000")
        pod.stop()
        wait_for_blocking(lambda: not pod.processes(), f"no process left of {pod.processes()}", deadline_s=1)


def test_a_failed_model_sync_is_repeated_and_does_not_keep_comfyui_away(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = f"bash -c 'echo run >>{runs}; exit 1'"
    with running_pod(
        tmp_path,
        MODEL_SYNC="first",
        MODEL_SYNC_COMMAND=command,
        MODEL_SYNC_ATTEMPTS="3",
        MODEL_SYNC_PAUSE_S="0",
    ) as pod:
        assert runs.read_text() == "run\n" * 3
        pod.wait_for_line("[comfyui] Starting ComfyUI although models are missing.")


def test_a_wrong_manifest_is_not_tried_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = f"bash -c 'echo run >>{runs}; exit 2'"
    with running_pod(tmp_path, MODEL_SYNC="first", MODEL_SYNC_COMMAND=command, MODEL_SYNC_PAUSE_S="0"):
        assert runs.read_text() == "run\n"


async def test_the_real_model_sync_fetches_what_the_manifest_of_the_volume_says(tmp_path: Path) -> None:
    model = b"weights" * 1000
    models = tmp_path / "workspace/models"
    models.mkdir(parents=True)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=model)

    app = web.Application()
    app.router.add_get("/x.safetensors", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    entry = {
        "name": "x",
        "path": "loras/x.safetensors",
        "urls": [f"http://127.0.0.1:{runner.addresses[0][1]}/x.safetensors"],
        "sha256": hashlib.sha256(model).hexdigest(),
        "size_bytes": len(model),
    }
    (models / "manifest.json").write_text(json.dumps({"version": 1, "models": [entry]}))

    def fetched() -> None:
        with running_pod(tmp_path, MODEL_SYNC="first") as pod:  # ready: so model_sync has ended
            assert (models / "loras/x.safetensors").read_bytes() == model
            status = json.loads(Path(pod.env["RUN_DIR"], "comfyui/model_sync.json").read_text())
            assert status["done_bytes"] == len(model)

    await asyncio.to_thread(fetched)
    await runner.cleanup()


def test_without_a_manifest_nothing_is_fetched(tmp_path: Path) -> None:
    with running_pod(tmp_path, MODEL_SYNC="background") as pod:
        pod.wait_for_line("[start] No models to fetch")
        assert not pod.running("model_sync")


def test_the_workspace_gets_folders_of_its_own_for_each_pod(tmp_path: Path) -> None:
    with running_pod(tmp_path, RUNPOD_POD_ID="pod1") as pod:
        workspace = Path(pod.env["WORKSPACE"])
        kinds = {path.name for path in (workspace / "comfyui/pod1").iterdir()}
        assert kinds == {"input", "output", "temp", "user"}
        assert {"checkpoints", "loras", "vae"} < {path.name for path in (workspace / "models").iterdir()}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            {"FRONT_DOOR_PORT": "80 80"},
            "FRONT_DOOR_PORT is '80 80'; allowed is a whole number from 1 to 65535",
        ),
        ({"AGENT_PORT": "65536"}, "AGENT_PORT is '65536'; allowed is a whole number from 1 to 65535"),
        ({"AGENT_PORT": "7000", "COMFYUI_PORT": "7000"}, "must differ"),
        ({"MODEL_SYNC": "maybe"}, "MODEL_SYNC is 'maybe'; allowed is off, background or first"),
        ({"POD_ALLOW_OPEN": "yes"}, "POD_ALLOW_OPEN is 'yes'; allowed is 0 or 1"),
        ({"WORKSPACE": "here"}, "WORKSPACE is 'here'; allowed is an absolute path"),
        ({"WORKSPACE": "/proc/none"}, "/proc/none/comfyui/local/input cannot be written"),
        ({"NGINX_COMMAND": "nginx-of-nobody"}, "there is no program nginx-of-nobody"),
        ({"GATEWAY_POD_TOKEN": "short"}, "the token must have 16 or more printable ASCII characters"),
        ({"FRONT_DOOR_MAX_BODY": '1g; } "'}, "max_body cannot be"),
        ({"FRONT_DOOR_SILENCE": "long"}, "silence cannot be 'long'"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_starts(
    tmp_path: Path, setting: dict[str, str], said: str
) -> None:
    ended = run_start(tmp_path, **setting)
    assert ended.returncode == 2
    assert said in ended.stdout + ended.stderr
    assert "supervisord started" not in ended.stdout
    assert "short" not in ended.stdout  # a token is not shown, not even a wrong one


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    ended = run_start(tmp_path, MODEL_SYNC="maybe", AGENT_PORT="no")
    assert "MODEL_SYNC" in ended.stderr
    assert "AGENT_PORT" in ended.stderr


def test_the_health_check_needs_comfyui_and_agent(tmp_path: Path) -> None:
    require_program("curl")

    def health(pod: PodProcess) -> int:
        script = ["bash", str(CONTAINER / "healthcheck.sh")]
        return subprocess.run(script, env=pod.env, check=False, capture_output=True, timeout=20).returncode

    with running_pod(tmp_path) as pod:
        assert health(pod) == 0
        pod.env["GATEWAY_POD_TOKEN"] = "another"
        assert health(pod) != 0
        pod.env["GATEWAY_POD_TOKEN"] = TOKEN
        for process in pod.running("-m agent"):
            process.suspend()
        assert health(pod) != 0


def test_a_program_runs_as_the_user_that_it_is_given(tmp_path: Path) -> None:
    python = Path("/usr/bin/python3")
    if psutil.Process().username() != "root" or not python.exists():
        pytest.skip("needs root and a Python that other users may run")
    ended = subprocess.run(
        [
            "bash",
            str(CONTAINER / "run_logged.sh"),
            "who",
            "nobody",
            "bash",
            "-c",
            "id -un; grep NoNewPrivs /proc/self/status",
        ],
        env={"PATH": "/usr/bin:/bin", "POD_PYTHON": str(python), "CONTAINER_DIR": str(CONTAINER)},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if "Permission denied" in ended.stderr + ended.stdout:
        pytest.skip(f"{ROOT} is not readable by other users")
    assert ended.stdout == "[who] nobody\n[who] NoNewPrivs:\t1\n"
