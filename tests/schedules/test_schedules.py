"""Whatever fails, lies or is killed: never two pods, never an orphan, never a surprise on the bill."""

import pytest

from tests.fakes.clock import FakeClock
from tests.schedules.history import History
from tests.schedules.schedule import draw

QUICK = 100
LONG = 2_000
AT_ONCE = 50


@pytest.mark.parametrize("seed", range(QUICK))
async def test_no_pod_is_doubled_lost_or_taken_from_others(seed: int) -> None:
    """Again and told: ``python -m tests.schedules SEED``."""
    await _play(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(QUICK, QUICK + LONG, AT_ONCE))
async def test_nor_in_two_thousand_more(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        await _play(seed)


async def _play(seed: int) -> None:
    history = History(draw(seed), FakeClock())
    try:
        await history.play()
    except (AssertionError, TimeoutError) as broken:
        pytest.fail(f"seed {seed} (again: python -m tests.schedules {seed}): {broken}")
    finally:
        await history.stop()
