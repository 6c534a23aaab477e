"""The demo as a person runs it: a process, its printed lines pasted into a shell, and nothing left afterwards."""

import asyncio
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from comfy_gateway.settings.model import variables
from simulators.demo import scenery
from simulators.demo.narration import told
from tests.e2e.gateway_process import ROOT
from tests.programs import require_program

USERS_KEY: Final = "rpa_THEKEYOFTHEUSER0123456789"
READY: Final = "Copy the lines"
ENDS_WITHIN_S: Final = 10.0


class Demo:
    """A running demo and what it has written."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self.reader = asyncio.get_running_loop().create_task(self._read())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.lines.append(line.decode().rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def line_with(self, text: str, *, within_s: float = 40.0) -> str:
        """The first line with that text, past or future."""
        try:
            async with asyncio.timeout(within_s), self._news:
                while True:
                    for line in self.lines:
                        if text in line:
                            return line
                    assert self.process.returncode is None, f"it ended before {text!r}:\n{self.output}"
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {text!r} within {within_s} s in:\n{self.output}") from None

    def children(self) -> list[psutil.Process]:
        """All processes that it has started and that live."""
        return psutil.Process(self.process.pid).children(recursive=True)

    async def ended(self, *, within_s: float) -> int:
        """Wait for the end of process and output; returns the exit code."""
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
            await self.reader
            return code


@asynccontextmanager
async def running_demo(*arguments: str, **settings: str) -> AsyncIterator[Demo]:
    """Start it with those environment variables beside our own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulators.demo",
        *arguments,
        env=environment(settings),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    demo = Demo(process)
    children: list[psutil.Process] = []
    try:
        yield demo
    finally:
        if process.returncode is None:
            children = demo.children()
            process.kill()
            await process.wait()
        for child in children:
            child.kill()
        await demo.reader


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """As run_gateway.sh gives it, on a free port unless the test says otherwise."""
    return scenery.clean_environment(os.environ) | {
        "PYTHONPATH": f"{ROOT / 'addons'}{os.pathsep}{ROOT}",
        "PORT": "0",
        **settings,
    }


async def shell(line: str, *, within_s: float) -> str:
    """What bash prints for the line."""
    process = await asyncio.create_subprocess_exec(
        str(require_program("bash")),
        "-c",
        line,
        env=scenery.clean_environment(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(within_s):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"not within {within_s} s: {line}") from None
    return output.decode()


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


async def test_the_script_takes_alice_through_burst_move_and_reaping_and_leaves_nothing() -> None:
    started_s = time.monotonic()
    async with running_demo("--script") as demo:
        await demo.line_with("prompt 1: 200")
        children = demo.children()
        assert len(children) >= 3
        assert await demo.ended(within_s=75) == 0, demo.output
        assert time.monotonic() - started_s < 75
        told_in_order = [
            "Simulated: the shared ComfyUI, and RunPod",
            "alice has sent 5 prompts within 60 s",
            "a pod for alice is ordered at RunPod: comfy-gw-alice",
            "alice's pod boots",
            "alice's pod answers: the next prompt of alice goes there",
            "X-Comfy-Session-Ready: 1, X-Comfy-Session-Source: private",
            "prompt 6: 200, X-Comfy-Session-Source: private",
            "alice's pod was idle for 1",
            "RunPod confirms that alice's pod is gone",
            "in all $0.00",
        ]
        places = [
            next((n for n, line in enumerate(demo.lines) if text in line), -1) for text in told_in_order
        ]
        assert -1 not in places, (told_in_order[places.index(-1)], demo.output)
        assert places == sorted(places), demo.output
        assert "\x1b" not in demo.output
        assert not living(children)


async def test_the_printed_lines_work_in_bash_and_ctrl_c_ends_everything() -> None:
    require_program("curl")
    async with running_demo(
        RUNPOD_API_KEY=USERS_KEY, POD_ENV_HF_TOKEN=USERS_KEY, DUTY_POD_URL="http://127.0.0.1:9/"
    ) as demo:
        await demo.line_with(READY)
        curls = [line for line in demo.lines if "curl " in line]
        assert len(curls) == 3
        children = demo.children()
        environments = [child.environ() for child in children]
        assert not [one for one in environments if USERS_KEY in one.values()]
        [folder] = {one["GATEWAY_STATE_DIR"] for one in environments if "GATEWAY_STATE_DIR" in one}
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700

        burst = await shell(curls[0], within_s=15)
        assert len(re.findall(r'"prompt_id": ?"[0-9a-f-]{36}"', burst)) == 5, burst
        move = await shell(curls[1], within_s=30)
        assert "X-Comfy-Session-Ready: 1" in move
        assert "X-Comfy-Session-Source: private" in move
        reaping = await shell(curls[2], within_s=40)
        assert "X-Comfy-Session-Ready: 0" in reaping
        assert "X-Comfy-Session-Source: duty" in reaping
        await demo.line_with("RunPod confirms")
        assert re.match(r"\[ *\d+ s\] ", await demo.line_with("alice's pod answers"))

        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended(within_s=ENDS_WITHIN_S) == 0
        assert not living(children)
        assert not Path(folder).exists()
    assert "at $0.69 an hour = $0.0" in demo.output
    assert "Traceback" not in demo.output


async def test_sigterm_ends_the_living_pod_and_tells_the_costs() -> None:
    async with running_demo() as demo:
        await demo.line_with(READY)
        children = demo.children()
        burst = next(line for line in demo.lines if line.startswith("for n in"))
        require_program("curl")
        await shell(burst, within_s=15)
        await demo.line_with("alice's pod boots")
        demo.process.terminate()
        assert await demo.ended(within_s=ENDS_WITHIN_S) == 0
        assert not living(children)
    assert "was asked to end at $0.69 an hour" in demo.output
    assert "in all $0.00" in demo.output


async def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    async with running_demo() as demo:
        deadline_s = time.monotonic() + 20
        while not (children := demo.children()):
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended(within_s=ENDS_WITHIN_S) == 0, demo.output
        assert not living(children)
    assert "Traceback" not in demo.output


@pytest.mark.parametrize(
    ("which", "name"),
    [
        ("simulators.runpod", "the simulated RunPod"),
        ("simulators.comfyui", "the simulated ComfyUI"),
        ("addons/gateway.py", "the gateway"),
    ],
    ids=["runpod", "duty", "gateway"],
)
async def test_a_child_that_dies_is_named_and_ends_the_demo(which: str, name: str) -> None:
    async with running_demo() as demo:
        await demo.line_with(READY)
        children = demo.children()
        [victim] = [child for child in children if which in child.cmdline()]
        victim.kill()
        assert await demo.ended(within_s=ENDS_WITHIN_S) == 1
        assert not living(children)
        await demo.line_with(f"{name} has ended")
    assert "Traceback" not in demo.output


async def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        async with running_demo(PORT=str(port)) as demo:
            assert await demo.ended(within_s=20) == 1
    [line] = demo.lines
    assert f"PORT={port} cannot be used" in line


async def test_a_port_that_is_none_is_told_without_a_trace() -> None:
    async with running_demo(PORT="eight thousand") as demo:
        assert await demo.ended(within_s=20) == 2
    assert "'eight thousand' is no port" in demo.output
    assert "PORT" in demo.output
    assert "Traceback" not in demo.output


async def test_help_names_the_options() -> None:
    async with running_demo("--help") as demo:
        assert await demo.ended(within_s=20) == 0
    assert "--script" in demo.output
    assert "--port" in demo.output


def test_no_setting_is_left_to_the_users_own_files(tmp_path: Path) -> None:
    runpod = {
        "RUNPOD_API_BASE": "http://127.0.0.1:1",
        "RUNPOD_PROXY_TEMPLATE": "http://127.0.0.1:1/{pod_id}",
        "RUNPOD_TELEMETRY_TEMPLATE": "http://127.0.0.1:1/{pod_id}",
    }
    settings = scenery.gateway_settings(
        port=8000, duty_url="http://127.0.0.1:2/", runpod=runpod, state_dir=tmp_path
    )
    assert settings.keys() == variables().keys() - {"POD_ENV_<NAME>"}
    blank = {name for name, value in settings.items() if not value.strip()}
    assert all(variables()[name].var.is_ended_by_blank for name in blank), "a blank one is looked for in .env"


def test_the_users_settings_and_proxies_do_not_reach_the_children() -> None:
    users = {
        "RUNPOD_API_KEY": USERS_KEY,
        "RUNPOD_TEMPLATE_ID": "x",
        "POD_ENV_HF_TOKEN": USERS_KEY,
        "AUTH_MODE": "basic",
        "HTTPS_PROXY": "http://proxy",
        "all_proxy": "http://proxy",
    }
    assert scenery.clean_environment(users | {"PATH": "/bin", "LANG": "C"}) == {"PATH": "/bin", "LANG": "C"}


def test_a_life_that_goes_wrong_is_told_in_the_gateways_own_words() -> None:
    line = "RunPod session named:bob: creating -> cooling, pod comfy-gw-bob1-2, after 0.4 s: no machine"
    assert told(f"[19:24:26.957] {line}") == line
    assert told("[19:24:26.957] Loading script addons/gateway.py") is None
    assert told("  File 'x', line 3") is None
