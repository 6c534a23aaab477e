"""What the fast path replaces does exactly what mitmproxy's own does, and goes away with the gateway."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import exceptions, hooks, http
from mitmproxy.addonmanager import AddonManager
from mitmproxy.options import Options
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook, HttpResponseHook
from mitmproxy.test import tflow
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.web.master import WebMaster

from comfy_gateway.hooks.fast_path import FastPathHook, dispatch, hook
from comfy_gateway.hooks.fast_path.headers import LOOKUPS

STOCK = {name: getattr(http.Headers, name) for name in LOOKUPS}
STOCK_ARGS = hooks.Hook.args


class Told:
    """An addon that notes its calls; it can halt, fail, wait, and have children."""

    def __init__(self, name: str, said: list[str], fault: Exception | None = None, *children: "Told") -> None:
        self.name = name
        self.addons = list(children)
        self._said = said
        self._fault = fault

    def request(self, flow: http.HTTPFlow) -> None:
        self._said.append(self.name)
        if self._fault is not None:
            raise self._fault

    async def response(self, flow: http.HTTPFlow) -> None:
        await asyncio.sleep(0)
        self.request(flow)


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[DumpMaster]:
    made = DumpMaster(Options(confdir=str(tmp_path)), with_termlog=False)
    yield made
    await made.done()


def trees(said: list[str]) -> list[Told]:
    return [
        Told("first", said, None, Told("child", said, ValueError("child")), Told("skipped", said)),
        Told("second", said, ValueError("second")),
        Told("third", said),
        Told("halt", said, exceptions.AddonHalt()),
        Told("never", said),
    ]


@pytest.mark.parametrize("event", [HttpRequestHook, HttpResponseHook], ids=["at once", "after a wait"])
async def test_order_containment_and_halt_are_those_of_mitmproxy(
    master: DumpMaster, event: Callable[[http.HTTPFlow], hooks.Hook], caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    master.addons.add(*trees(said))
    flow = tflow.tflow(resp=True)
    await master.addons.handle_lifecycle(event(flow))
    stock, stock_log = said.copy(), [record.getMessage() for record in caplog.records]
    assert stock == ["first", "child", "second", "third", "halt"]

    said.clear()
    caplog.clear()
    master.addons.add(FastPathHook())
    caplog.set_level(logging.ERROR)
    await master.addons.handle_lifecycle(event(flow))
    assert said == stock
    assert [record.getMessage() for record in caplog.records] == stock_log


async def test_addons_that_come_and_go_are_called_from_then_on_and_no_more(master: DumpMaster) -> None:
    said: list[str] = []
    master.addons.add(FastPathHook())
    event = HttpRequestHook(tflow.tflow())
    await master.addons.handle_lifecycle(event)
    late = Told("late", said, None, Told("child", said))
    master.addons.add(late)
    await master.addons.handle_lifecycle(event)
    assert said == ["late", "child"]
    master.addons.remove(late)
    await master.addons.handle_lifecycle(event)
    assert said == ["late", "child"]


async def test_who_looks_at_flows_is_told_of_every_change(master: DumpMaster) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[http.HTTPFlow] = []

        def update(self, flows: list[http.HTTPFlow]) -> None:
            self.seen += flows

    watcher, flow = Watcher(), tflow.tflow()
    master.addons.add(FastPathHook(), watcher)
    await master.addons.handle_lifecycle(HttpRequestHook(flow))
    assert watcher.seen == [flow]


async def test_an_option_wakes_the_addon_that_it_is_for_and_puts_it_to_sleep(master: DumpMaster) -> None:
    master.addons.add(FastPathHook())

    async def header() -> str | None:
        flow = tflow.tflow()
        await master.addons.handle_lifecycle(hooks_of_headers(flow))
        return flow.request.headers.get("x-added")

    assert await header() is None
    master.options.update(modify_headers=["/~q/x-added/yes"])
    assert await header() == "yes"
    master.options.update(modify_headers=[])
    assert await header() is None


def hooks_of_headers(flow: http.HTTPFlow) -> hooks.Hook:
    return hooks.all_hooks["requestheaders"](flow)


async def test_every_addon_that_is_left_out_is_one_of_mitmdumps_and_its_options_exist(
    master: DumpMaster,
) -> None:
    for name, options in dispatch.IDLE_WITHOUT.items():
        assert master.addons.get(name) is not None, name
        for option in options:
            assert option in master.options, option


async def test_addons_that_are_left_out_would_have_done_nothing(master: DumpMaster) -> None:
    """Each is called by itself with every event of a flow while its options are not set."""
    master.options.update(flow_detail=0, onboarding=False, block_global=False, block_private=False)
    for name in dispatch.IDLE_WITHOUT:
        addon = master.addons.get(name)
        for event_name in ("requestheaders", "request", "responseheaders", "response", "error"):
            flow = tflow.tflow(resp=True, err=event_name == "error")
            before = flow.get_state()
            event = hooks.all_hooks[event_name](flow)
            await AddonManager.invoke_addon(master.addons, addon, event)
            assert flow.get_state() == before, (name, event_name)


async def test_mitmweb_has_commands_for_them_so_there_all_are_called(tmp_path: Path) -> None:
    web = WebMaster(Options(confdir=str(tmp_path)), with_termlog=False)
    web.addons.add(FastPathHook())
    found = {type(handler.__self__).__name__ for group in handlers(web, "request") for handler in group}
    assert {"ServerPlayback", "MapRemote", "StickyCookie"} <= found
    await web.done()


def handlers(master: Any, event_name: str) -> Any:
    event = hooks.all_hooks[event_name](tflow.tflow())
    return master.addons._handlers_of(event)


async def test_all_goes_away_with_the_gateway(master: DumpMaster) -> None:
    added = FastPathHook()
    master.addons.add(added)
    assert type(master.addons) is not AddonManager
    assert http.Headers.get is not STOCK["get"]
    master.addons.remove(added)
    assert type(master.addons) is AddonManager
    assert {name: getattr(http.Headers, name) for name in LOOKUPS} == STOCK
    assert "get" not in vars(http.Headers)
    assert hooks.Hook.args is STOCK_ARGS


async def test_another_mitmproxy_stays_as_it_is_and_somebody_is_told(
    master: DumpMaster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook, "TESTED_VERSION", "0.0.1")
    master.addons.add(FastPathHook())
    assert type(master.addons) is AddonManager
    assert http.Headers.get is STOCK["get"]
    assert "FAST_PATH needs mitmproxy 0.0.1" in caplog.text


async def test_events_give_the_same_arguments(master: DumpMaster) -> None:
    flow = tflow.tflow()
    event = HttpRequestHook(flow)
    stock = event.args()
    master.addons.add(FastPathHook())
    assert event.args() == stock == [flow]


names = st.sampled_from([b"Host", b"host", b"X-A", b"x-a", b"X-\xff", b"", b"Cookie", b"x-ab"])
fields = st.lists(st.tuples(names, st.sampled_from([b"", b"1", b"a, b", b"\xe4\xff", b"x" * 40])), max_size=6)
asked = st.one_of(
    st.sampled_from(["Host", "HOST", "x-a", "X-\udcff", "", "nobody"]),
    st.sampled_from([b"x-A", b"Cookie", b"X-\xff"]),
)


@given(fields=fields, name=asked)
def test_headers_are_found_and_removed_as_mitmproxy_does(
    fields: list[tuple[bytes, bytes]], name: str | bytes
) -> None:
    for method in LOOKUPS:
        ours, stock = http.Headers(fields), http.Headers(fields)
        assert outcome(LOOKUPS[method], ours, name) == outcome(STOCK[method], stock, name), method
        assert ours.fields == stock.fields
        if method in {"get", "pop"}:
            assert outcome(LOOKUPS[method], ours, name, "else") == outcome(STOCK[method], stock, name, "else")


def outcome(method: Any, *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except KeyError:
        return KeyError


@pytest.fixture(autouse=True)
def _mitmproxy_is_put_back() -> Iterator[None]:
    yield
    assert {name: getattr(http.Headers, name) for name in LOOKUPS} == STOCK
