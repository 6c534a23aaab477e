"""The promises of ``core.ports.Clock``."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.core.ports import Clock


@pytest.fixture
def clock() -> Clock:
    return SystemClock()


async def test_sleeping_moves_the_clock_by_at_least_so_long(clock: Clock) -> None:
    started = clock.monotonic()
    await clock.sleep(0.05)
    assert 0.05 <= clock.monotonic() - started < 5


async def test_others_run_while_one_sleeps(clock: Clock) -> None:
    ran = asyncio.Event()

    async def other() -> None:
        ran.set()

    await asyncio.gather(clock.sleep(0.02), other())
    assert ran.is_set()


def test_now_is_aware_utc(clock: Clock) -> None:
    now = clock.now()
    assert now.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)


def test_time_never_goes_back(clock: Clock) -> None:
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
