"""Limits and use of the container that we run in, from cgroup v2 or v1. Blocking reads of a few small files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNLIMITED_V1_BYTES = 1 << 60
"""Version 1 says "no limit" by a number near 2**63."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    used_bytes: int
    """Without the page cache that the kernel gives back first (inactive_file)."""
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class CpuUse:
    used_s: float
    """Since the group began."""
    limit_cores: float


class Cgroup:
    """Looks from our own group up to the top of what this container sees; the narrowest limit counts.

    root  where the hierarchies are mounted
    own   the file that says in which group we are
    """

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> None:
        self._v2: str | None = None
        self._v1: dict[str, str] = {}
        self._root = root
        for line in _text(own).splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                self._v2 = path
            for controller in controllers.split(","):
                self._v1[controller] = path

    def memory(self) -> MemoryUse | None:
        """None where no limit is set, or none can be read."""
        uses = [self._memory_v2(group) for group in self._groups_v2()]
        uses += [self._memory_v1(group) for group in self._groups_v1("memory")]
        return min((use for use in uses if use), key=lambda use: use.limit_bytes, default=None)

    def cpu(self) -> CpuUse | None:
        """None where no limit is set, or none can be read."""
        uses = [self._cpu_v2(group) for group in self._groups_v2()]
        uses += [self._cpu_v1(group) for group in self._groups_v1("cpu")]
        return min((use for use in uses if use), key=lambda use: use.limit_cores, default=None)

    def _groups_v2(self) -> Iterator[Path]:
        if self._v2 is not None:
            yield from _upwards(self._root, self._v2)

    def _groups_v1(self, controller: str) -> Iterator[Path]:
        if controller in self._v1:
            yield from _upwards(self._root / controller, self._v1[controller])

    def _memory_v2(self, group: Path) -> MemoryUse | None:
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is None or used is None:
            return None
        return MemoryUse(max(0, used - _stat(group / "memory.stat", "inactive_file")), limit)

    def _memory_v1(self, group: Path) -> MemoryUse | None:
        limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
        if limit is None or used is None or limit >= UNLIMITED_V1_BYTES:
            return None
        return MemoryUse(max(0, used - _stat(group / "memory.stat", "total_inactive_file")), limit)

    def _cpu_v2(self, group: Path) -> CpuUse | None:
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota.isdigit() or not period.strip().isdigit():
            return None
        used_us = _stat(group / "cpu.stat", "usage_usec")
        return CpuUse(used_us / 1e6, int(quota) / int(period))

    def _cpu_v1(self, group: Path) -> CpuUse | None:
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        path = group.relative_to(self._root / "cpu")
        used_ns = _number(self._root / "cpuacct" / path / "cpuacct.usage")
        if not quota or quota < 0 or not period or used_ns is None:
            return None
        return CpuUse(used_ns / 1e9, quota / period)


def allowed_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _upwards(root: Path, own: str) -> Iterator[Path]:
    """Our group and those above it. In a container the path may be the host's and be missing: then only the top."""
    group = root / own.lstrip("/")
    while group != root and root in group.parents and ".." not in group.parts:
        yield group
        group = group.parent
    yield root


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    """None for "max" and for what is not there."""
    told = _text(path)
    return int(told) if told.lstrip("-").isdigit() else None


def _stat(path: Path, name: str) -> int:
    """The value of one line of a flat keyed file, 0 where it is not there."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0
