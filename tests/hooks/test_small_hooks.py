"""Frames, timers, comments, error pages and how much is kept: the hooks that decide nothing about a route."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from mitmproxy import version, websocket
from mitmproxy.proxy.layers.http import _http1, _http2
from mitmproxy.proxy.layers.websocket import WebsocketEndHook, WebsocketMessageHook
from mitmproxy.test import taddons, tflow
from wsproto.frame_protocol import Opcode

from comfy_gateway.hooks.error_pages import ErrorPages, make_error_response
from comfy_gateway.hooks.frames import FramesHook
from comfy_gateway.hooks.keep import AUTO_MB, kept_bytes
from comfy_gateway.hooks.prompts import refuse_unread
from tests.hooks.stand import ALICE, POD, Stand, ask, socket

# -- frames


async def kept_of(stand: Stand, sizes: list[int], keep_bytes: int) -> list[int]:
    """The sizes of the frames that are left after so many came, the n-th of them filled with its number."""
    stand.keep_bytes = keep_bytes
    flow = tflow.twebsocketflow(messages=False)
    flow.websocket = websocket.WebSocketData()
    for number, size in enumerate(sizes):
        flow.websocket.messages.append(
            websocket.WebSocketMessage(Opcode.BINARY, number % 2 == 0, bytes([number]) * size)
        )
        await stand.trigger(WebsocketMessageHook(flow))
        assert flow.websocket.messages[-1].content == bytes([number]) * size, "mitmproxy reads the newest one"
    await stand.trigger(WebsocketEndHook(flow))
    return [len(message.content) for message in flow.websocket.messages]


@pytest.mark.parametrize(
    ("sizes", "keep_bytes", "left"),
    [
        ([5, 5, 5, 5], 0, [5]),
        ([5], 0, [5]),
        ([5, 5, 5, 5], 10, [5, 5]),
        ([5, 5, 5, 5], 20, [5, 5, 5, 5]),
        ([5, 5, 5, 5], 14, [5, 5]),
        ([1, 1, 1, 10], 10, [10]),
        ([5, 100], 10, [100]),
        ([100, 5], 10, [5]),
        ([100, 100, 3, 3], 10, [3, 3]),
        ([0, 0, 0], 10, [0, 0, 0]),
    ],
)
async def test_only_the_newest_frames_are_kept(
    stand: Stand, sizes: list[int], keep_bytes: int, left: list[int]
) -> None:
    assert await kept_of(stand, sizes, keep_bytes) == left


async def test_what_was_kept_is_forgotten_with_its_socket(stand: Stand) -> None:
    await kept_of(stand, [5, 5], 10)
    hook = next(hook for hook in stand.hooks if isinstance(hook, FramesHook))
    assert hook._kept_bytes == {}


# -- how much is kept


@pytest.mark.parametrize(("keep_mb", "is_watched", "kept_mb"), [
    (0, False, 0), (0, True, 0), (3, False, 3), (3, True, 3), ("auto", False, 0), ("auto", True, AUTO_MB),
])  # fmt: skip
def test_bodies_are_kept_where_somebody_looks(keep_mb: int, is_watched: bool, kept_mb: int) -> None:
    with taddons.context() as context:
        if is_watched:
            context.master.addons.add(SimpleNamespace(name="view"))
        assert kept_bytes(keep_mb) == kept_mb * 1024 * 1024


# -- comments


async def test_a_comment_says_who_asked_and_who_answered(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)
    assert (await stand.exchange(ask("/system_stats"))).comment == "named:alice -> comfy-gw-alice-1"
    assert (await stand.exchange(ask("/", user="bob"))).comment == "named:bob -> duty-0"
    assert (await stand.exchange(ask("/extensions", user=None))).comment == "nobody -> duty-0"
    assert (await stand.exchange(socket())).comment == "named:alice -> gateway"
    assert (await stand.exchange(ask("/system_stats", user=None))).comment == "nobody -> gateway"
    broken = await stand.arrive(ask("/system_stats", user="bob"))
    await stand.break_off(broken)
    assert broken.comment == "named:bob -> duty-1"


async def test_what_a_flow_carries_is_plain_and_holds_no_secret(stand: Stand) -> None:
    """mitmproxy writes it into recordings."""
    stand.routes.set_private(ALICE, POD)
    for flow in (
        ask("/view?filename=a"),
        socket(),
        ask("/?user_id=bob", user=None, headers=[("Accept", "text/html")]),
    ):
        await stand.exchange(flow)
        text = json.dumps(flow.metadata) + flow.comment
        assert POD.token is not None
        assert POD.token not in text
        assert stand.edge.site_key not in text


# -- timers


async def test_only_a_server_that_is_waited_for_has_a_timer(stand: Stand) -> None:
    timers = stand.deadlines._timers
    await stand.arrive(socket())
    await stand.arrive(ask("/gateway/"))
    await stand.arrive(ask("/system_stats", user=None))
    assert timers == {}
    waiting = await stand.arrive(ask("/system_stats"))
    assert list(timers) == [waiting.id]
    assert timers[waiting.id].when() == pytest.approx(asyncio.get_running_loop().time() + 300, abs=5)
    await stand.answer(waiting)
    assert timers == {}
    broken = await stand.arrive(ask("/system_stats"))
    await stand.break_off(broken)
    assert timers == {}


async def test_the_end_of_the_gateway_ends_all_timers(stand: Stand) -> None:
    await stand.arrive(ask("/system_stats"))
    [timer] = stand.deadlines._timers.values()
    stand.deadlines.done()
    assert timer.cancelled()
    assert stand.deadlines._timers == {}


# -- error pages


@pytest.fixture
def pages() -> Iterator[ErrorPages]:
    made = ErrorPages()
    yield made
    made.uninstall()


@pytest.mark.parametrize(
    ("status", "message", "shown", "kind"),
    [
        (502, "Connection refused by 10.0.0.7:8188", 502, "upstream_unreachable"),
        (502, "upstream_timeout", 504, "upstream_timeout"),
        (502, "[Errno 110] Connection timed out", 504, "upstream_timeout"),
        (502, "Connection failed: upstream_timeout", 504, "upstream_timeout"),
        (502, "connection cancelled", 502, "upstream_unreachable"),
        (504, "whatever", 502, "upstream_unreachable"),
        (400, "Bad bytes <secret>", 400, "malformed_request"),
        (413, "too large: <secret>", 413, "malformed_request"),
        (500, "", 502, "upstream_unreachable"),
    ],
)
def test_an_error_is_json_in_comfyuis_shape_and_repeats_nothing(
    pages: ErrorPages, status: int, message: str, shown: int, kind: str
) -> None:
    head, _, body = make_error_response(status, message).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {shown} ".encode())
    assert b"Connection: close" in head
    assert b"Content-Type: application/json; charset=utf-8" in head
    error = json.loads(body)["error"]
    assert error["type"] == kind
    for secret in ("10.0.0.7", "8188", "Errno", "secret"):
        assert secret not in body.decode()

    pages.install()
    format_error = vars(_http2)["format_error"]
    assert json.loads(format_error(status, message))["error"]["type"] == kind


def test_the_pages_are_replaced_and_put_back(pages: ErrorPages) -> None:
    def current() -> tuple[object, ...]:
        return _http1.make_error_response, _http1.Http1Server.send, vars(_http2)["format_error"]

    stock = current()
    pages.install()
    assert not set(stock) & set(current())
    pages.uninstall()
    assert current() == stock
    pages.uninstall()
    assert current() == stock


def test_another_mitmproxy_is_refused_and_left_alone(
    pages: ErrorPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = _http1.make_error_response
    monkeypatch.setattr(version, "VERSION", "12.3.0")
    with pytest.raises(RuntimeError, match=r"needs mitmproxy 12\.2\.3, this is 12\.3\.0"):
        pages.install()
    assert _http1.make_error_response is stock


def test_a_readable_prompt_is_not_refused_unread() -> None:
    assert refuse_unread(ask("/prompt", method="POST", body=b"{}").request) is None
