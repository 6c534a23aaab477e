"""Limits of the container, the machine, and model_sync's status."""

import json
import os
from pathlib import Path

import psutil
import pytest

from agent.cgroup import Cgroup, CpuUse, MemoryUse, allowed_cores
from agent.machine import IDLE, MachineReader, ModelSync

GIB = 1024**3


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def cgroup(root: Path, own: str, files: dict[str, str]) -> Cgroup:
    tree(root, {"own": own, **{f"fs/{name}": text for name, text in files.items()}})
    return Cgroup(root / "fs", root / "own")


V2 = {
    "memory.max": f"{8 * GIB}\n",
    "memory.current": f"{3 * GIB}\n",
    "memory.stat": f"anon 5\ninactive_file {GIB}\n",
    "cpu.max": "400000 100000\n",
    "cpu.stat": "usage_usec 5000000\nuser_usec 1\n",
}
V1 = {
    "memory/memory.limit_in_bytes": f"{8 * GIB}",
    "memory/memory.usage_in_bytes": f"{3 * GIB}",
    "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}",
    "cpu/cpu.cfs_quota_us": "400000",
    "cpu/cpu.cfs_period_us": "100000",
    "cpuacct/cpuacct.usage": "5000000000",
}


@pytest.mark.parametrize(
    ("own", "files"),
    [("0::/\n", V2), ("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n", V1), ("0::/a/b\n", V2)],
    ids=["v2", "v1 with the host's path", "v2 below the container's top"],
)
def test_the_containers_limits_are_read(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    group = cgroup(tmp_path, own, files)
    assert group.memory() == MemoryUse(2 * GIB, 8 * GIB)
    assert group.cpu() == CpuUse(5.0, 4.0)


def test_the_narrowest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    group = cgroup(tmp_path, "0::/inner\n", {**V2, "inner/memory.max": f"{GIB}", "inner/memory.current": "5"})
    assert group.memory() == MemoryUse(5, GIB)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("", {}),
        ("0::/\n", {}),
        ("0::/\n", {**V2, "memory.max": "max", "cpu.max": "max 100000"}),
        ("0::/\n", {**V2, "memory.max": "nonsense", "cpu.max": ""}),
        ("4:memory:/\n3:cpu:/\n",
         {**V1, "memory/memory.limit_in_bytes": str(2**63 - 4096), "cpu/cpu.cfs_quota_us": "-1"}),
        ("0::/../..\n", {}),
    ],
)  # fmt: skip
def test_no_limit_is_none(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    group = cgroup(tmp_path, own, files)
    assert group.memory() is None
    assert group.cpu() is None


def reader(folder: Path, group: Cgroup, now: list[float], status: Path | None = None) -> MachineReader:
    return MachineReader(folder, status, monotonic=lambda: now[0], time=lambda: now[0], cgroup=group)


def test_cpu_is_a_share_of_what_the_container_may_use(tmp_path: Path) -> None:
    now = [100.0]
    machine = reader(tmp_path, cgroup(tmp_path, "0::/\n", {**V2, "cpu.max": "50000 100000"}), now)
    assert machine.read().cpu_percent is None
    tree(tmp_path / "fs", {"cpu.stat": "usage_usec 5500000\n"})
    now[0] += 2.0
    assert machine.read().cpu_percent == 50.0


def test_memory_is_the_containers_own(tmp_path: Path) -> None:
    machine = reader(tmp_path, cgroup(tmp_path, "0::/\n", V2), [0.0]).read()
    assert (machine.memory_used_bytes, machine.memory_total_bytes) == (2 * GIB, 8 * GIB)


def test_a_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    group = cgroup(tmp_path, "0::/\n", {**V2, "memory.max": str(2**60)})
    assert reader(tmp_path, group, [0.0]).read().memory_total_bytes == psutil.virtual_memory().total


def test_without_limits_the_machine_is_told(tmp_path: Path) -> None:
    machine = reader(tmp_path, cgroup(tmp_path, "", {}), [0.0])
    assert machine.read().cpu_percent is None
    reading = machine.read()
    assert reading.cpu_percent is not None
    assert 0 <= reading.cpu_percent <= 100
    disk = os.statvfs(tmp_path)
    assert reading.disk_total_bytes == disk.f_blocks * disk.f_frsize


def test_a_folder_that_is_not_there_has_no_disk(tmp_path: Path) -> None:
    reading = reader(tmp_path / "none", cgroup(tmp_path, "", {}), [0.0]).read()
    assert (reading.disk_used_bytes, reading.disk_total_bytes) == (None, None)
    assert reading.memory_total_bytes is not None


def test_this_machine_has_at_least_one_core() -> None:
    assert allowed_cores() >= 1


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (None, IDLE),
        ({"state": "running", "done_bytes": 5, "total_bytes": 9}, ModelSync("running", 5, 9)),
        ({"state": "failed", "done_bytes": -1}, ModelSync("failed", None, None)),
        ({"state": "dancing"}, None),
        ([], None),
        ("{", None),
    ],
)
def test_model_syncs_status_is_told(tmp_path: Path, written: object, told: ModelSync | None) -> None:
    status = tmp_path / "status.json"
    now = [0.0]
    if written is not None:
        status.write_text(written if isinstance(written, str) else json.dumps(written))
        now[0] = status.stat().st_mtime
    assert reader(tmp_path, cgroup(tmp_path, "", {}), now, status).read().model_sync == told


def test_a_fetch_that_died_is_not_running_for_ever(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    status.write_text('{"state": "running", "done_bytes": 1, "total_bytes": 2}')
    now = [status.stat().st_mtime + 121]
    assert reader(tmp_path, cgroup(tmp_path, "", {}), now, status).read().model_sync == ModelSync(
        "failed", 1, 2
    )


def test_without_a_status_file_models_are_idle(tmp_path: Path) -> None:
    assert reader(tmp_path, cgroup(tmp_path, "", {}), [0.0]).read().model_sync == IDLE
