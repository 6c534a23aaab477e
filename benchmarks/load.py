"""Load by wrk: one thread on a core of its own, so that the generator is not what is measured."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import pinned

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_WRONG = re.compile(r"Non-2xx or 3xx responses: \d+")
_LOST = re.compile(r"Socket errors: (.*)")


@dataclass(frozen=True)
class Round:
    """One measurement."""

    per_s: float
    p50_ms: float
    p99_ms: float
    lost: str = ""
    """Requests that got no answer, in wrk's words."""


@dataclass(frozen=True)
class Work:
    """What is asked for. ``script`` is one for wrk, in Lua."""

    name: str
    path: str
    connections: int
    script: str = ""


def small_graph(size_bytes: int) -> str:
    """A Lua script for prompts of about that size. Each names no id: the gateway gives every one its own."""
    note = "n" * size_bytes
    return f"""wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{{"client_id":"bench","prompt":{{"1":{{"class_type":"EmptyImage","inputs":{{"width":64}}}}}},\
"extra_data":{{"note":"{note}"}}}}'
"""


WORKS = (
    Work("small GET, 16 connections", "/system_stats", 16),
    Work("small GET, 1 connection", "/system_stats", 1),
    Work("500 KB of JSON, 16 connections", "/object_info_of_500_kb", 16),
    Work("POST /prompt of 50 KB, 16 connections", "/prompt", 16, small_graph(50_000)),
)


def measure(work: Work, port: int, seconds: float, folder: Path, *, core: int) -> Round:
    """Raises RuntimeError when an answer was wrong: a figure of errors is none."""
    command = [
        "wrk",
        "-t1",
        f"-c{work.connections}",
        f"-d{seconds:g}s",
        "--latency",
        "-H",
        "X-Comfy-User: bench",
    ]
    if work.script:
        script = folder / "work.lua"
        script.write_text(work.script)
        command += ["-s", str(script)]
    told = subprocess.run(
        pinned([*command, f"http://127.0.0.1:{port}{work.path}"], core),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if wrong := _WRONG.search(told):
        raise RuntimeError(f"{work.name}: {wrong[0]}")
    latency = {number: float(value) * _UNITS_MS[unit] for number, value, unit in _PERCENTILE.findall(told)}
    rate = _RATE.search(told)
    assert rate is not None
    lost = _LOST.search(told)
    return Round(float(rate[1]), latency["50"], latency["99"], "" if lost is None else lost[1])
