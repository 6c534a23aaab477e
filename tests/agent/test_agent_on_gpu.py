"""The comparison with nvidia-smi, as far as it goes without a GPU."""

import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from agent.gpu import GpuReading
from scripts.agent_on_gpu import MIB, Pair, parse

ROOT = Path(__file__).parents[2]


def reading(percent: float | None, used_mib: int = 1000) -> GpuReading:
    return GpuReading(0, "GPU", percent, used_mib * MIB, 80_000 * MIB)


@pytest.mark.parametrize(
    ("before", "after", "percent", "used_mib", "wrong"),
    [
        (reading(0), reading(0), 0.0, 1000, 0),
        (reading(0), reading(99), 60.0, 1009, 0),
        (reading(90), reading(95), 85.0, 1000, 0),
        (reading(90), reading(95), 84.0, 1000, 1),
        (reading(None), reading(None), 50.0, 1000, 1),
        (reading(0), reading(0), 0.0, 1020, 1),
        (reading(0, 1), reading(0, 1), 0.0, 2, 0),
        (reading(0, 3), reading(0, 3), 50.0, 1, 2),
        (reading(None), reading(None), None, None, 0),
    ],
)
def test_a_pair_disagrees_beyond_a_sample_and_one_per_cent(
    before: GpuReading, after: GpuReading, percent: float | None, used_mib: int | None, wrong: int
) -> None:
    used = None if used_mib is None else used_mib * MIB
    assert len(Pair(before, after, percent, used, 80_000 * MIB).disagreements()) == wrong


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0, 37, 1024, 81559, 41, 71.20", (0, 37.0, 1024.0 * MIB, 81559.0 * MIB)),
        ("1, [N/A], 5, 9, [N/A], [N/A]", (1, None, 5.0 * MIB, 9.0 * MIB)),
    ],
)
def test_a_line_of_nvidia_smi_is_read(line: str, told: object) -> None:
    assert parse(line) == told


def test_without_a_gpu_the_script_says_so() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        command = [sys.executable, "-m", "scripts.agent_on_gpu"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, "no GPU" in ended.stderr) == (2, True)
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has a GPU")
