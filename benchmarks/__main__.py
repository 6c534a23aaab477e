"""``./run_gateway.sh bench [--quick] [--report FILE]``."""

import argparse
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import WORKS, Round, Work, measure
from benchmarks.machine import describe
from benchmarks.peers import PEERS, missing, started
from benchmarks.report import REFERENCE, table
from benchmarks.upstream import Upstream, upstream

LOAD_CORE, PROXY_CORE = 0, 1
NEEDED = ("wrk", "nginx")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when everything was measured, 1 when a program is missing or an answer was wrong."""
    parser = argparse.ArgumentParser(
        prog="./run_gateway.sh bench", description="What the gateway costs beside its peers, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 3 s instead of 5 of 6 s")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write the tables there as well, as Markdown"
    )
    parser.add_argument(
        "--page",
        metavar="URL",
        help="measure page loads of the ComfyUI that runs there, and nothing else; needs chromium",
    )
    chosen = parser.parse_args(arguments)
    if lacking := [program for program in NEEDED if shutil.which(program) is None]:
        sys.stderr.write(
            f"The benchmarks need {' and '.join(lacking)}; Debian and Ubuntu have packages of that name.\n"
        )
        return 1
    os.chdir(Path(__file__).parents[1])
    peers = []
    for name in PEERS:
        if (program := missing(name)) is None:
            peers.append(name)
        else:
            sys.stderr.write(f"{name} is left out: {program} is not installed\n")
    rounds, seconds = (2, 3.0) if chosen.quick else (5, 6.0)
    text = (
        f"{describe()}. Medians of {rounds} rounds of {seconds:g} s each; "
        "load and upstream on one core, the peer on another.\n\n"
        if chosen.page is None
        else f"{describe()}. Medians of {rounds} rounds; the peer on one core, browser and server on all.\n\n"
    )
    sys.stdout.write(text)
    try:
        parts = _parts(peers, rounds, seconds) if chosen.page is None else _pages(chosen.page, rounds)
        for part in parts:
            sys.stdout.write(part)
            sys.stdout.flush()
            text += part
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if chosen.report is not None:
        chosen.report.write_text(text)
    return 0


def _pages(server: str, rounds: int) -> Iterator[str]:
    """One table for each line. Raises RuntimeError."""
    from benchmarks import page_load  # noqa: PLC0415 - playwright is not there where only the rest is measured

    with tempfile.TemporaryDirectory(prefix="comfy-gateway-bench-") as name:
        yield from page_load.tables(server, Path(name), rounds)


def _parts(peers: list[str], rounds: int, seconds: float) -> Iterator[str]:
    """One table for each work. Raises RuntimeError."""
    with (
        tempfile.TemporaryDirectory(prefix="comfy-gateway-bench-") as name,
        upstream(folder := Path(name), core=LOAD_CORE) as comfyui,
    ):
        for work in WORKS:
            yield f"{table(work.name, _measured(work, peers, comfyui, folder, rounds, seconds))}\n"


def _measured(
    work: Work, peers: list[str], comfyui: Upstream, folder: Path, rounds: int, seconds: float
) -> dict[str, list[Round]]:
    """All peers in turn, and that several times: what else the machine does meets all of them."""
    found: defaultdict[str, list[Round]] = defaultdict(list)
    for number in range(rounds):
        for name in peers:
            sys.stderr.write(f"\r{work.name}: round {number + 1} of {rounds}, {name:30}")
            sys.stderr.flush()
            with started(name, comfyui, folder, core=PROXY_CORE) as port:
                measure(work, port, 1.0, folder, core=LOAD_CORE)  # connections, caches
                found[name].append(measure(work, port, seconds, folder, core=LOAD_CORE))
    sys.stderr.write("\r" + " " * 90 + "\r")
    assert REFERENCE in found
    return found


if __name__ == "__main__":
    sys.exit(main())
