"""``python -m tests.schedules SEED``: plays one schedule and prints its steps, transitions and warnings."""

import argparse
import asyncio
import logging
import sys

from tests.fakes.clock import FakeClock
from tests.schedules.history import History
from tests.schedules.schedule import draw


async def play(seed: int) -> int:
    """0 when every promise was kept."""
    clock = FakeClock()
    history = History(draw(seed), clock, tell=print)
    try:
        await history.play()
    except (AssertionError, TimeoutError) as broken:
        print(f"{clock.monotonic():8.1f} s  BROKEN: {broken}")
        return 1
    finally:
        await history.stop()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.schedules", description=__doc__)
    parser.add_argument("seed", type=int)
    logging.basicConfig(level=logging.INFO, format="            %(message)s", stream=sys.stdout)
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    sys.exit(loop.run_until_complete(play(parser.parse_args().seed)))
