"""Programs that run while something is measured."""

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import pinned

START_WITHIN_S = 60.0


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(
    arguments: list[str],
    *,
    port: int,
    core: int,
    folder: Path,
    name: str,
    env: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """The program, from the moment when it accepts connections. Raises RuntimeError with its last words if it ends."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(pinned(arguments, core), stdout=output, stderr=output, env=env)
    try:
        deadline_s = time.monotonic() + START_WITHIN_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{name} does not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        is_open = probe.connect_ex(("127.0.0.1", port)) == 0
        # A free port of the ephemeral range may be given to this very socket, which then meets itself.
        return is_open and probe.getsockname() != probe.getpeername()
