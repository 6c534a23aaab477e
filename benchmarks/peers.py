"""What stands between client and ComfyUI: the gateway, and what people would use instead."""

import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import free_port, running
from benchmarks.upstream import Upstream

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

type Peer = Callable[[Upstream, Path, int], Iterator[int]]
"""Upstream, a folder for its files and its core; yields the port that it listens on."""


def _direct(upstream: Upstream, _folder: Path, _core: int) -> Iterator[int]:
    yield upstream.port


def _nginx(upstream: Upstream, folder: Path, core: int) -> Iterator[int]:
    port = free_port()
    conf = folder / "peer.conf"
    conf.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/peer.pid; error_log stderr;
events {{ worker_connections 2048; }}
http {{ access_log off; proxy_max_temp_file_size 0; map $http_upgrade $upgrade {{ default upgrade; '' ''; }}
  client_body_temp_path {folder}/peer_body; proxy_temp_path {folder}/peer_temp;
  upstream comfy {{ server 127.0.0.1:{upstream.port}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port}; client_max_body_size 100m; client_body_buffer_size 1m;
    location / {{ proxy_pass http://comfy; proxy_http_version 1.1;
      proxy_set_header Connection $upgrade; proxy_set_header Upgrade $http_upgrade; }} }} }}
"""
    )
    with running(["nginx", "-c", str(conf)], port=port, core=core, folder=folder, name="nginx"):
        yield port


def _http_proxy(upstream: Upstream, folder: Path, core: int) -> Iterator[int]:
    port = free_port()
    command = [
        "configurable-http-proxy", "--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1",
        "--api-port", str(free_port()), "--default-target", upstream.url, "--log-level", "error",
    ]  # fmt: skip
    with running(command, port=port, core=core, folder=folder, name="configurable-http-proxy"):
        yield port


def _fastapi(upstream: Upstream, folder: Path, core: int) -> Iterator[int]:
    port = free_port()
    (folder / "fastapi_peer.py").write_text(
        "from fastapi_proxy_lib.fastapi.app import reverse_http_app\n"
        f"app = reverse_http_app(base_url={upstream.url + '/'!r})\n"
    )
    command = [
        sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--log-level", "warning", "--no-access-log",
        "--port", str(port), "fastapi_peer:app",
    ]  # fmt: skip
    with running(command, port=port, core=core, folder=folder, name="fastapi"):
        yield port


def _mitmdump(upstream: Upstream, folder: Path, core: int) -> Iterator[int]:
    port = free_port()
    command = [
        str(BIN / "mitmdump"), "--mode", f"reverse:{upstream.url}", "--listen-host", "127.0.0.1", "-p", str(port),
        "--set", "connection_strategy=lazy", "--set", "flow_detail=0", "--set", "termlog_verbosity=warn",
        "--set", f"confdir={folder / 'mitmproxy'}",
    ]  # fmt: skip
    with running(command, port=port, core=core, folder=folder, name="mitmdump"):
        yield port


def _gateway(upstream: Upstream, folder: Path, core: int, *, fast: str = "1") -> Iterator[int]:
    port = free_port()
    state = folder / f"state-{port}"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = {
        **kept, "DUTY_POD_URL": upstream.url, "GATEWAY_STATE_DIR": str(state), "PORT": str(port), "FAST_PATH": fast,
        "MAX_QUEUED_PER_USER": "0", "GATEWAY_CONFIG_PATH": str(_empty_config(folder)),
    }  # fmt: skip
    command = [
        str(BIN / "mitmdump"), "--mode", "reverse:http://127.0.0.1:9", "-s", str(ROOT / "addons" / "gateway.py"),
        "--listen-host", "127.0.0.1", "--listen-port", str(port), "--set", "flow_detail=0",
        "--set", "termlog_verbosity=info", "--set", f"confdir={folder / 'mitmproxy'}",
    ]  # fmt: skip
    with running(command, port=port, core=core, folder=folder, name=f"gateway-{fast}", env=env):
        yield port


def _empty_config(folder: Path) -> Path:
    path = folder / "gateway.yaml"
    path.write_text("{}\n")
    return path


def _slow_gateway(upstream: Upstream, folder: Path, core: int) -> Iterator[int]:
    yield from _gateway(upstream, folder, core, fast="0")


PEERS: dict[str, Peer] = {
    "mitmdump": _mitmdump,
    "gateway": _gateway,
    "gateway, FAST_PATH=0": _slow_gateway,
    "fastapi-proxy-lib": _fastapi,
    "configurable-http-proxy": _http_proxy,
    "nginx": _nginx,
    "direct": _direct,
}
"""The first is the one that ratios are taken to."""
PROGRAMS = {"nginx": "nginx", "configurable-http-proxy": "configurable-http-proxy"}


def missing(name: str) -> str | None:
    """The program that this peer needs and that is not installed, or None."""
    program = PROGRAMS.get(name)
    return program if program is not None and shutil.which(program) is None else None


def _wait_for_answer(name: str, port: int) -> None:
    """A proxy may listen before it can serve. Raises RuntimeError."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/system_stats", headers={"X-Comfy-User": "bench"}
    )
    deadline_s = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - loopback
                return
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{name} does not answer: {error}") from None
            time.sleep(0.1)


@contextmanager
def started(name: str, upstream: Upstream, folder: Path, *, core: int) -> Iterator[int]:
    """The peer, running; yields its port."""
    made = PEERS[name](upstream, folder, core)
    port = next(made)
    try:
        _wait_for_answer(name, port)
        yield port
    finally:
        next(made, None)
