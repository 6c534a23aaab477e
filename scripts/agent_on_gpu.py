"""Compares what the agent reads of the GPUs with nvidia-smi, idle and under load. For a machine that has one,
from the project's folder.

    python -m scripts.agent_on_gpu [--seconds 60] [--load "COMMAND"]

The load is PyTorch multiplying matrices on every GPU in an interpreter of its own (--python names one that has it), or
any other command that runs until it is killed. Prints every pair and a summary as Markdown. Exit code 1 when they
disagree, 2 without a GPU or without nvidia-smi, 3 when the load ended by itself.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.gpu import GpuReading, NvmlReader

QUERY = "index,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
MIB = 1024 * 1024
MEMORY_SHARE = 0.01
UTILIZATION_POINTS = 5.0
"""By how much nvidia-smi may lie outside of the agent's readings just before and just after it."""
WARM_UP_S = 10.0
LOAD = """
import torch
gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
matrices = [torch.rand(8192, 8192, device=gpu) for gpu in gpus]
while True:
    for matrix in matrices:
        matrix @ matrix
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
"""


@dataclass(frozen=True)
class Pair:
    """nvidia-smi on one GPU, between two readings of the agent. None: not told."""

    before: GpuReading
    after: GpuReading
    utilization_percent: float | None
    memory_used_bytes: float | None
    memory_total_bytes: float | None

    def disagreements(self) -> list[str]:
        """What differs by more than may be."""
        found = []
        if self.utilization_percent is not None:
            told = [one.utilization_percent for one in (self.before, self.after)]
            known = [percent for percent in told if percent is not None]
            if not known or not (
                min(known) - UTILIZATION_POINTS <= self.utilization_percent <= max(known) + UTILIZATION_POINTS
            ):
                found.append(f"utilisation {self.utilization_percent:g} against {told}")
        for name in ("memory_used_bytes", "memory_total_bytes"):
            said = getattr(self, name)
            if said is None:
                continue
            ours = [getattr(one, name) for one in (self.before, self.after)]
            # nvidia-smi tells whole MiB
            slack = max(MEMORY_SHARE * said, MIB)
            if not any(value is not None and abs(value - said) <= slack for value in ours):
                found.append(f"{name} {said:g} against {ours}")
        return found


def parse(line: str) -> tuple[int, float | None, float | None, float | None]:
    """(index, utilisation in per cent, memory used and total in bytes) of one line of nvidia-smi."""
    words = [word.strip() for word in line.split(",")]
    numbers = [float(word) if word.replace(".", "", 1).isdigit() else None for word in words[1:4]]
    used, total = (None if number is None else number * MIB for number in numbers[1:])
    return int(words[0]), numbers[0], used, total


def pairs_of(reader: NvmlReader, nvidia_smi: str, seconds: float) -> Iterator[Pair]:
    """One for each GPU and second."""
    ends_s = time.monotonic() + seconds
    before = reader.read()
    while time.monotonic() < ends_s:
        said = subprocess.run(
            [nvidia_smi, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
            check=True, capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip
        after = reader.read()
        for line in said.splitlines():
            index, percent, used, total = parse(line)
            yield Pair(before[index], after[index], percent, used, total)
        time.sleep(1.0)
        before = reader.read()


def report(title: str, pairs: Sequence[Pair]) -> int:
    """Prints the pairs and returns how many disagree."""
    print(f"\n### {title}\n")
    print(
        "| GPU | nvidia-smi % | agent % before, after | nvidia-smi MiB | agent MiB | °C | W |\n|" + "---|" * 7
    )
    wrong = 0
    for pair in pairs:
        one = pair.after
        used = None if one.memory_used_bytes is None else round(one.memory_used_bytes / MIB)
        said = None if pair.memory_used_bytes is None else round(pair.memory_used_bytes / MIB)
        print(
            f"| {one.index} | {pair.utilization_percent} | {pair.before.utilization_percent}, "
            f"{one.utilization_percent} | {said} | {used} | {one.temperature_celsius} | {one.power_watts} |"
        )
        if differing := pair.disagreements():
            wrong += 1
            print(f"disagrees: {'; '.join(differing)}", file=sys.stderr)
    print(f"\n{title}: {len(pairs)} pairs, {wrong} disagree")
    return wrong


@contextmanager
def under_load(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: a shell's children end with it.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    told = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    told.add_argument("--seconds", type=float, default=60.0, help="of each of the two parts")
    told.add_argument("--python", default=sys.executable, help="an interpreter that has PyTorch")
    told.add_argument("--load", help="another command that keeps the GPUs busy until it is killed")
    options = told.parse_args()
    reader = NvmlReader(time.monotonic)
    nvidia_smi = shutil.which("nvidia-smi")
    gpus = reader.read()
    if not gpus or nvidia_smi is None:
        print("There is no GPU here that NVML and nvidia-smi can read", file=sys.stderr)
        return 2
    print("GPUs:", ", ".join(str(gpu.name) for gpu in gpus))
    wrong = report("Idle", list(pairs_of(reader, nvidia_smi, options.seconds)))
    command = shlex.split(options.load) if options.load else [options.python, "-c", LOAD]
    with under_load(command) as load:
        time.sleep(WARM_UP_S)
        pairs = list(pairs_of(reader, nvidia_smi, options.seconds))
        if load.poll() is not None:
            print(f"The load ended by itself with {load.returncode}", file=sys.stderr)
            return 3
    wrong += report("Under load", pairs)
    reader.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
