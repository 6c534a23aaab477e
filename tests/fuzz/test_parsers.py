"""Changed seeds through every parser. A failing case prints its seed: ``FUZZ_SEED=… pytest …`` plays it again alone."""

import os
from random import Random

import pytest
from hypothesis import given, strategies

from tests.fuzz.parsers import PARSERS, mutated

QUICK_CASES = 8_000
LONG_CASES = 1_000_000


def play(parser: str, seed: int) -> None:
    """One case."""
    raw = mutated(Random(seed))
    try:
        PARSERS[parser](raw)
    except Exception as error:
        raise AssertionError(f"FUZZ_SEED={seed}: {parser} breaks on {raw!r}") from error


def play_all(cases: int) -> None:
    names = sorted(PARSERS)
    for seed in [int(os.environ["FUZZ_SEED"])] if "FUZZ_SEED" in os.environ else range(cases // len(names)):
        for name in names:
            play(name, seed)


def test_no_parser_breaks_on_changed_requests() -> None:
    play_all(QUICK_CASES)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_parser_breaks_on_a_million_changed_requests() -> None:
    play_all(LONG_CASES)


@pytest.mark.parametrize("parser", sorted(PARSERS))
@given(raw=strategies.binary(max_size=300))
def test_no_parser_breaks_on_any_bytes(parser: str, raw: bytes) -> None:
    PARSERS[parser](raw)
