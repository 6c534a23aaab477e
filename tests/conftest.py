"""What all tests share: the event loop as mitmproxy has it, free ports, and which tests are long.

`tests.conditions.wait_for` and `tests.programs.require_program` are plain functions to import.
"""

import asyncio
import gc
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

# Runs a pytest of its own in tests/test_conftest.py.
pytest_plugins = ["pytester"]

LONG = os.environ.get("GATEWAY_TEST_LONG") == "1"

# The quick suite tries the same examples each time, so that a red run is red again; the long one searches.
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=60, database=None)
settings.register_profile(
    "long", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("long" if LONG else "quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected lives as long as the run: looking through it for garbage is half of the time that it takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the long tests out of the quick suite, and those that are asked for by name in."""
    if LONG or "long" in (config.option.markexpr or ""):
        return
    named = {argument for argument in config.args if "::" in argument}
    left_out = [item for item in items if item.get_closest_marker("long") and not _is_named(item, named)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_named(item: pytest.Item, named: set[str]) -> bool:
    return any(item.nodeid.startswith(argument.removeprefix("./")) for argument in named)


def _mitmproxy_loop() -> asyncio.AbstractEventLoop:
    """A loop whose tasks run at once to their first await, as mitmproxy's do: its races show here too."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"mitmproxy": _mitmproxy_loop}


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """For programs that cannot be given port 0."""
    # Not at the top: tests/test_conftest.py runs this file alone in another folder.
    from tests.ports import free_port  # noqa: PLC0415

    return free_port()
