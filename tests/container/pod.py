"""A pod for tests: start.sh and all that it runs, as processes, without root's users and without a container."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.conditions import wait_for_blocking
from tests.ports import free_ports
from tests.programs import require_program

ROOT: Final = Path(__file__).parents[2]
CONTAINER: Final = ROOT / "container"
START: Final = CONTAINER / "start.sh"
TOKEN: Final = "d00r5ec2e7" * 6
AGENT_TOKEN: Final = "a9en75ec2e7" * 6
TOKEN_HEADER: Final = "X-Comfy-Gateway-Token"
GUARDED: Final = {TOKEN_HEADER: TOKEN}

SIMULATOR: Final = '"$POD_PYTHON" -m simulators.comfyui --port "$COMFYUI_PORT"'
ECHO: Final = '"$POD_PYTHON" -m tests.container.echo_comfyui "$COMFYUI_PORT"'
NO_AGENT: Final = '"$POD_PYTHON" -m http.server --bind 127.0.0.1 --directory "$RUN_DIR/comfyui" "$AGENT_PORT"'

START_WITHIN_S: Final = 30.0
END_WITHIN_S: Final = 10.0


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What start.sh needs to run below `folder`; nothing else of this machine's environment."""
    door, comfyui, agent = free_ports(3)
    return {
        "PATH": os.environ["PATH"],
        "POD_PYTHON": sys.executable,
        "POD_AS_ROOT": "1",
        "NGINX_COMMAND": str(require_program("nginx")),
        "APP_DIR": str(ROOT),
        "RUN_DIR": str(folder / "run"),
        "WORKSPACE": str(folder / "workspace"),
        "FRONT_DOOR_HOST": "127.0.0.1",
        "FRONT_DOOR_PORT": str(door),
        "COMFYUI_PORT": str(comfyui),
        "AGENT_HOST": "127.0.0.1",
        "AGENT_PORT": str(agent),
        "GATEWAY_POD_TOKEN": TOKEN,
        "AUTH_TOKEN": AGENT_TOKEN,
        "MODEL_SYNC": "off",
        "COMFYUI_COMMAND": SIMULATOR,
        **settings,
    }


@dataclass
class PodProcess:
    """A running pod. It has a session of its own, by which all its processes are found."""

    process: subprocess.Popen[str]
    env: dict[str, str]
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def door_url(self) -> str:
        return f"http://127.0.0.1:{self.env['FRONT_DOOR_PORT']}"

    @property
    def comfyui_url(self) -> str:
        """Past the front door: what the test may see and nobody else."""
        return f"http://127.0.0.1:{self.env['COMFYUI_PORT']}"

    @property
    def agent_url(self) -> str:
        return f"http://127.0.0.1:{self.env['AGENT_PORT']}"

    def processes(self) -> list[psutil.Process]:
        """All living ones, start.sh (by then supervisord) included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def running(self, words: str) -> list[psutil.Process]:
        """Those whose command line contains the words."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait_for_port(self, name: str, *, within_s: float = START_WITHIN_S) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, f"the pod has ended:\n{self.log}"
            with socket.socket() as probe:
                is_open = probe.connect_ex(("127.0.0.1", int(self.env[name]))) == 0
                # A free port of the ephemeral range may be given to this very socket, which then meets itself.
                return is_open and probe.getsockname() != probe.getpeername()

        wait_for_blocking(listens, f"{name} to be listened on", deadline_s=within_s)

    def wait_for_door(self) -> None:
        """Until it answers. That its port is listened on says little: so it is while start.sh tries nginx's file."""

        def answers() -> bool:
            assert self.process.poll() is None, f"the pod has ended:\n{self.log}"
            door = http.client.HTTPConnection("127.0.0.1", int(self.env["FRONT_DOOR_PORT"]), timeout=5)
            with contextlib.closing(door), contextlib.suppress(OSError):
                door.request("GET", "/")
                return door.getresponse().status > 0
            return False

        wait_for_blocking(answers, "the front door to answer", deadline_s=START_WITHIN_S)

    def wait_for_line(self, text: str, *, within_s: float = START_WITHIN_S) -> str:
        def found() -> str:
            return next((line for line in list(self.lines) if text in line), "")

        return wait_for_blocking(found, f"a line with {text!r} in\n{self.log}", deadline_s=within_s)

    def stop(self) -> int:
        """SIGTERM to the first process, as a container's end is. The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_WITHIN_S)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


@contextlib.contextmanager
def running_pod(folder: Path, *, ready: bool = True, **settings: str) -> Iterator[PodProcess]:
    """Starts a pod and, where `ready`, waits until door, ComfyUI and agent listen. Leaves no process behind."""
    env = environment(folder, settings)
    process = subprocess.Popen(
        ["bash", str(START)],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    pod = PodProcess(process, env)
    reader = threading.Thread(target=pod.read)
    reader.start()
    try:
        if ready:
            for name in ("FRONT_DOOR_PORT", "COMFYUI_PORT", "AGENT_PORT"):
                pod.wait_for_port(name)
        yield pod
    finally:
        try:
            pod.stop()
        finally:
            for left in pod.processes():
                with contextlib.suppress(psutil.Error):
                    left.kill()
            process.wait()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()


def run_start(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """start.sh where it is expected to end by itself."""
    return subprocess.run(
        ["bash", str(START)],
        env=environment(folder, settings),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
