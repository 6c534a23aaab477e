"""The gateway starts and ends with mitmproxy, and says which options it needs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.test import taddons
from mitmproxy.tools.dump import DumpMaster

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.hooks.edge import Edge
from comfy_gateway.hooks.lifecycle import OPTIONS, PLACEHOLDER, LifecycleHook, _bracketed
from tests.hooks.running import closed_port
from tests.hooks.stand import Stand


class Part:
    """What the hook starts and ends."""

    def __init__(self, edge: Edge, fault: Exception | None = None, *, is_stuck: bool = False) -> None:
        self.edge = edge
        self.fault = fault
        self.is_stuck = is_stuck
        self.said: list[str] = []

    async def start(self) -> Edge:
        self.said.append("start")
        if self.fault is not None:
            raise self.fault
        return self.edge

    async def stop(self) -> None:
        self.said.append("stop")
        if self.is_stuck:
            await asyncio.get_running_loop().create_future()


def hook_of(stand: Stand, part: Part, **more: Any) -> LifecycleHook:
    stand.door.close()
    return LifecycleHook(
        stand.door, stand.pages, host="127.0.0.1", port=0, start=part.start, stop=part.stop, **more
    )


GIVEN: dict[str, object] = {
    "connection_strategy": "eager",
    "keep_host_header": False,
    "block_global": True,
    "onboarding": True,
    "http2": True,
}
"""For each option of ours what somebody could have given instead."""


def loaded(stand: Stand, confdir: Path, *given: str) -> options.Options:
    """The options of a real mitmproxy that was given these and has loaded the hook."""
    master = DumpMaster(options.Options(confdir=str(confdir)), with_termlog=False, with_dumper=False)
    master.options.set(*given, defer=True)
    try:
        master.addons.add(hook_of(stand, Part(stand.edge)))
    finally:
        stand.pages.uninstall()
    return master.options


async def test_the_options_that_the_gateway_needs_are_set(stand: Stand, tmp_path: Path) -> None:
    found = loaded(stand, tmp_path)
    assert {name: getattr(found, name) for name in OPTIONS} == OPTIONS
    assert all(found.default(name) != value for name, value in OPTIONS.items()), "else it need not be set"


@pytest.mark.parametrize("name", OPTIONS)
async def test_an_option_that_was_given_stays(stand: Stand, tmp_path: Path, name: str) -> None:
    text = str(GIVEN[name])
    found = loaded(stand, tmp_path, f"{name}={text.lower()}")
    assert {each: getattr(found, each) for each in OPTIONS} == {**OPTIONS, name: GIVEN[name]}


async def test_the_door_opens_when_the_gateway_has_started_and_closes_before_it_ends(stand: Stand) -> None:
    part = Part(stand.edge)
    hook = hook_of(stand, part)
    stock = _http1.make_error_response
    with taddons.context():
        stand.pages.install()
        assert _http1.make_error_response is not stock
        await hook.running()
        assert stand.door.edge is stand.edge
        assert part.said == ["start"]
        await hook.done()
        assert part.said == ["start", "stop"]
        assert stand.door.edge is None
        assert _http1.make_error_response is stock, "mitmproxy has its own error pages back"


@pytest.mark.parametrize("fault", [GatewayError("the database is gone"), OSError("no such folder")])
async def test_a_start_that_fails_is_one_line_and_the_door_stays_closed(
    stand: Stand, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    hook = hook_of(stand, Part(stand.edge, fault))
    with taddons.context():
        await hook.running()
    assert stand.door.edge is None
    [line] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert line.getMessage() == f"The gateway cannot start: {fault}"
    assert line.exc_info is None


async def test_only_a_start_that_fails_ends_the_process(stand: Stand, tmp_path: Path) -> None:
    """Errors of parts that go on without a disk or an account are for the operator to read."""

    class Complaining(Part):
        async def start(self) -> Edge:
            logging.getLogger("comfy_gateway.service.vault.trouble").error("The vault cannot be written")
            return await super().start()

    for fault, fatal in (
        (None, []),
        (OSError("no such folder"), ["The gateway cannot start: no such folder"]),
    ):
        hook = hook_of(stand, Complaining(stand.edge, fault))
        master = DumpMaster(options.Options(confdir=str(tmp_path)), with_termlog=False, with_dumper=False)
        errors = master.addons.get("errorcheck")
        master.addons.add(hook)
        master.options.update(server=False)
        try:
            await hook.running()
            assert [record.getMessage() for record in errors.logger.has_errored] == fatal
        finally:
            errors.finish()
            await hook.done()


async def test_an_end_that_hangs_is_given_up(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    hook = hook_of(stand, Part(stand.edge, is_stuck=True), end_within_s=0.05)
    with taddons.context():
        async with asyncio.timeout(5):
            await hook.done()
    assert "did not end cleanly" in caplog.text


# -- where it listens


async def listening(
    stand: Stand, confdir: Path, check: Callable[[DumpMaster], Awaitable[None]], **given: Any
) -> None:
    """Run ``check`` once a real mitmproxy with these options has started."""
    hook = hook_of(stand, Part(stand.edge), **given.pop("hook", {}))
    master = DumpMaster(options.Options(confdir=str(confdir), **given), with_termlog=False, with_dumper=False)
    master.addons.add(hook)
    server = master.addons.get("proxyserver")
    try:
        await hook.running()
        await check(master)
    finally:
        master.options.update(server=False)
        await server.setup_servers()
        await hook.done()


async def test_without_a_mode_it_is_the_dead_placeholder_on_our_own_address(
    stand: Stand, tmp_path: Path
) -> None:
    async def check(master: DumpMaster) -> None:
        [mode] = master.options.mode
        assert mode.startswith(f"{PLACEHOLDER}@127.0.0.1:")
        [address] = master.addons.get("proxyserver").listen_addrs()
        assert address[0] == "127.0.0.1"

    await listening(stand, tmp_path, check)


async def test_an_address_of_the_command_line_counts_before_the_settings(
    stand: Stand, tmp_path: Path
) -> None:
    port = closed_port().upstream.port

    async def check(master: DumpMaster) -> None:
        assert [address[:2] for address in master.addons.get("proxyserver").listen_addrs()] == [
            ("127.0.0.1", port)
        ]

    await listening(stand, tmp_path, check, mode=[PLACEHOLDER], listen_host="127.0.0.1", listen_port=port)
    await listening(stand, tmp_path, check, mode=[f"{PLACEHOLDER}@127.0.0.1:{port}"])


async def test_a_port_that_is_taken_stops_the_start(
    stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]

    async def check(_master: DumpMaster) -> None:
        assert stand.door.edge is None

    try:
        await listening(stand, tmp_path, check, listen_port=port)
    finally:
        taken.close()
        await taken.wait_closed()
    assert f"cannot start: 127.0.0.1:{port} cannot be listened on" in caplog.text


async def test_without_a_server_nothing_listens(stand: Stand, tmp_path: Path) -> None:
    """`mitmdump -n`, to read a recording."""

    async def check(master: DumpMaster) -> None:
        assert stand.door.edge is stand.edge
        assert not master.addons.get("proxyserver").listen_addrs()

    await listening(stand, tmp_path, check, server=False)


@pytest.mark.parametrize(("host", "text"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("", "")])
def test_an_address_with_colons_stands_in_brackets(host: str, text: str) -> None:
    assert _bracketed(host) == text
