"""Every parser under a fuzzer that goes where it has reached new lines (atheris, which is libFuzzer).

What breaks one is written to the folder of the test, and its bytes stand in the message.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.parsers import PARSERS, SEEDS

PROJECT = Path(__file__).resolve().parents[2]
RUNS = 1_000_000
MOST_S = 60


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it is made for Linux on x86-64 alone (requirements-dev.txt)",
)
@pytest.mark.parametrize("parser", sorted(PARSERS))
def test_no_parser_breaks_on_what_reaches_new_lines(parser: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-runs={RUNS}", f"-max_total_time={MOST_S}", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", parser, *options, str(corpus)],
        cwd=PROJECT,
        env={"PYTHONPATH": f"{PROJECT}:{PROJECT}/addons"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=MOST_S + 120,
        check=False,
    )
    assert done.returncode == 0, f"{parser} breaks: {done.stderr[-4000:]}"
    reached = [int(found) for found in re.findall(r"cov: ([0-9]+)", done.stderr)]
    assert reached, done.stderr[-1000:]
    assert reached[-1] > 3, "nothing was instrumented"
