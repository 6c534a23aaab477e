"""Where a run took place, and where its processes run."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil


def describe() -> str:
    """One line for the report: processor, cores, memory, versions."""
    memory_gb = psutil.virtual_memory().total / 1024**3
    return (
        f"{_processor()}, {len(cores())} cores, {memory_gb:.0f} GB; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, mitmproxy {version('mitmproxy')}"
    )


def cores() -> list[int]:
    """Those that we may use."""
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def pinned(arguments: list[str], core: int) -> list[str]:
    """The command, bound to one core where the machine can do that."""
    mine = cores()
    if not Path("/usr/bin/taskset").exists() or len(mine) < 2:
        return arguments
    return ["taskset", "-c", str(mine[core % len(mine)]), *arguments]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
