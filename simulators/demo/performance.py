"""One run of the demo, from the first child to the last."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from simulators.demo import scenery
from simulators.demo.children import Child, ChildFailed
from simulators.demo.narration import is_reaping, told
from simulators.demo.steps import StepFailed, costs, curl_lines, play

GATEWAY_ENDS_WITHIN_S: Final = 6.0
SIMULATORS_END_WITHIN_S: Final = 1.5
"""With the costs it is less than the ten seconds after which supervisors kill."""
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DUTY_READY: Final = re.compile(r"ComfyUI simulator \w+: (http://\S+)$")
_RUNPOD_READY: Final = re.compile(r"^\{.*\}$")
_GATEWAY_READY: Final = re.compile(r"The gateway is ready at (http://\S+)/")


async def perform(port: int, *, is_scripted: bool, api: str = "sdk") -> int:
    """Start all, narrate until a signal or the script's end, and end all. Returns the exit code."""
    if fault := what_is_wrong_with(port):
        sys.stderr.write(f"{fault}\n")
        return 1
    performance = asyncio.current_task()
    assert performance is not None
    loop = asyncio.get_running_loop()
    is_ending = False

    def end_now() -> None:
        # Only once: a second Ctrl-C must not interrupt the ending and leave children behind.
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            performance.cancel()

    for number in ENDINGS:
        loop.add_signal_handler(number, end_now)
    failures: list[Exception] = []
    with tempfile.TemporaryDirectory(prefix="comfy-gateway-demo-", ignore_cleanup_errors=True) as folder:
        stage = Stage(Path(folder), api)
        try:
            failures += await stage.play(port, is_scripted=is_scripted)
        except asyncio.CancelledError:
            if not is_ending:
                raise
            performance.uncancel()
        finally:
            is_ending = True
            await stage.end()
    for failure in failures:
        sys.stderr.write(f"{failure}\n")
    return 1 if failures else 0


def what_is_wrong_with(port: int) -> str | None:
    """Why the gateway cannot listen there, or None."""
    with socket.socket() as probe:
        # As asyncio does it: a port whose last connections are still dying counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            example = f"PORT={_another(port)} ./run_gateway.sh demo"
            return f"PORT={port} cannot be used ({reason}): choose another, say {example}"
    return None


def _another(port: int) -> int:
    return port + 1 if 1024 <= port < 65535 else scenery.DEFAULT_PORT


class Stage:
    """The children, and what the audience is told of them. ``folder`` is for the gateway's state, ``api`` the one of
    RunPod's that it speaks.
    """

    def __init__(self, folder: Path, api: str) -> None:
        self._folder = folder
        self._api = api
        self._simulators: list[Child] = []
        self._gateway: Child | None = None
        self._ledger_url: str | None = None
        self._is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._ready_at_s = time.monotonic()
        self._was_reaped = asyncio.Event()

    async def play(self, port: int, *, is_scripted: bool) -> list[Exception]:
        """Goes on until it is cancelled, a child dies or the script ends; returns what failed."""
        failures: list[Exception] = []
        try:
            duty_url, runpod = await self._start_simulators()
            url = await self._start_gateway(port, duty_url, runpod)
            assert self._gateway is not None
            assert self._ledger_url is not None
            self._introduce(url, is_scripted=is_scripted)
            async with asyncio.TaskGroup() as group:
                followers = [
                    group.create_task(self._gateway.follow(self._narrate)),
                    *(group.create_task(child.follow(_ignore)) for child in self._simulators),
                ]
                if is_scripted:
                    await play(url, self._ledger_url, self._was_reaped, self._narrate_step)
                    for follower in followers:
                        follower.cancel()
        except* (ChildFailed, StepFailed) as group_of_failures:
            failures += group_of_failures.exceptions
        return failures

    async def end(self) -> None:
        """End all that was started, the gateway first: it ends its pods while there is still a RunPod."""
        if self._gateway is not None:
            self._say("")
            self._say("Ending ...")
            await self._gateway.end(GATEWAY_ENDS_WITHIN_S, self._narrate)
        if self._ledger_url is not None:
            for line in await costs(self._ledger_url):
                self._say(f"  {line}")
        async with asyncio.TaskGroup() as group:
            for child in self._simulators:
                group.create_task(child.end(SIMULATORS_END_WITHIN_S))

    async def _start_simulators(self) -> tuple[str, dict[str, str]]:
        """The shared ComfyUI's address, and the settings that point a gateway at the cloud."""
        environment = scenery.environment()
        duty = await Child.start("the simulated ComfyUI", scenery.duty_command(), environment, scenery.ROOT)
        self._simulators.append(duty)
        cloud = await Child.start("the simulated RunPod", scenery.runpod_command(), environment, scenery.ROOT)
        self._simulators.append(cloud)
        duty_url = (await duty.until(_DUTY_READY))[1]
        runpod: dict[str, str] = json.loads((await cloud.until(_RUNPOD_READY))[0])
        self._ledger_url = f"{runpod['RUNPOD_API_BASE']}/_sim/ledger"
        return duty_url, runpod | {"RUNPOD_API": self._api}

    async def _start_gateway(self, port: int, duty_url: str, runpod: dict[str, str]) -> str:
        """Its address, without a slash at the end."""
        settings = scenery.gateway_settings(
            port=port, duty_url=duty_url, runpod=runpod, state_dir=self._folder
        )
        self._gateway = await Child.start(
            "the gateway",
            scenery.gateway_command(port, self._folder),
            scenery.environment() | settings,
            scenery.ROOT,
        )
        url = (await self._gateway.until(_GATEWAY_READY))[1]
        self._ready_at_s = time.monotonic()
        return url

    def _introduce(self, url: str, *, is_scripted: bool) -> None:
        burst, move, reaping = curl_lines(url)
        count, window_s = scenery.THRESHOLD_COUNT, scenery.WINDOW_S
        lines = [
            "Simulated: the shared ComfyUI, and RunPod with its pods. Real: the gateway. Nothing is bought.",
            f"The gateway is at {self._bold(url + '/')}",
            "",
            f"1. Burst: {count} prompts of alice within {window_s} s buy her a pod.",
            self._bold(burst),
            f"2. Move: after {scenery.BOOT_S} s of boot her requests are answered by her own pod.",
            self._bold(move),
            f"3. Reaping: after {scenery.IDLE_S} s without work the pod is ended; the shared ComfyUI answers again.",
            self._bold(reaping),
            "",
            "The same by itself:"
            if is_scripted
            else "Copy the lines into another terminal. Ctrl-C ends all.",
        ]
        for line in lines:
            self._say(line)

    def _narrate(self, line: str) -> None:
        """Tell what a line of the gateway's log means."""
        if text := told(line):
            self._narrate_step(text)
        if is_reaping(line):
            self._was_reaped.set()

    def _narrate_step(self, text: str) -> None:
        self._say(f"[{time.monotonic() - self._ready_at_s:3.0f} s] {text}")

    def _say(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._is_coloured else text


def _ignore(_line: str) -> None:
    """The simulators talk to themselves."""
