"""A client that does not read costs its own bounded buffer and nobody else anything."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.site.relay_stand import (
    ALICE,
    QUICK,
    Client,
    ScriptedComfy,
    Stand,
    jpeg_preview,
    relay_before,
    until,
)

MEGABYTE = 1024 * 1024
SMALL_BUFFER_BYTES = 4096


@pytest.fixture
async def comfy() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@asynccontextmanager
async def stalled(stand: Stand, sid: str = "tab") -> AsyncIterator[Client]:
    """A client that reads nothing until it is told to, with little room in the kernel for what waits."""

    def small(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        return made

    connector = aiohttp.TCPConnector(socket_factory=small)
    async with aiohttp.ClientSession(connector=connector) as http:
        made = await http.ws_connect(
            f"{stand.url}/ws?clientId={sid}", headers={"X-User": ALICE.key}, max_msg_size=0
        )
        yield Client(made)
        made._response.close()


async def say_previews(comfy: ScriptedComfy, sizes: Iterable[int]) -> None:
    for number, size in enumerate(sizes):
        await comfy.say_bytes(jpeg_preview(size))
        await comfy.say("progress", value=number, prompt_id="p")


async def test_previews_are_dropped_and_no_event_is_when_a_client_is_slow(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url) as stand, stalled(stand) as slow:
        await say_previews(comfy, [MEGABYTE] * 40)
        await comfy.say("that is all")
        await until(lambda: stand.stats.dropped_previews > 10)

        await slow.hear_kind("that is all")

        previews = [said for said in slow.said if isinstance(said, bytes)]
        assert [progress["value"] for progress in slow.of("progress")] == list(range(40))
        assert len(previews) + stand.stats.dropped_previews == 40
        assert isinstance(slow.said[-3], bytes), "the newest preview is kept"
        assert stand.stats.overflows == 0


async def test_a_client_that_reads_no_events_is_closed_with_1013(comfy: ScriptedComfy) -> None:
    limits = replace(QUICK, close_timeout_s=5.0)
    async with relay_before(comfy.url, limits) as stand, stalled(stand) as slow:
        for number in range(60):
            await comfy.say("large", number=number, text="x" * MEGABYTE)
            if stand.stats.overflows:
                break
        await until(lambda: stand.stats.overflows == 1)

        await slow.hear_all_until_closed()

        assert slow.close_code == aiohttp.WSCloseCode.TRY_AGAIN_LATER
        numbers = [large["number"] for large in slow.of("large")]
        assert numbers == list(range(len(numbers))), "what was sent before is whole"
        await until(lambda: stand.stats.client_sockets == 0)


async def test_a_client_that_never_reads_again_is_cut(comfy: ScriptedComfy) -> None:
    limits = replace(QUICK, event_budget_bytes=MEGABYTE, close_timeout_s=0.2)
    async with relay_before(comfy.url, limits) as stand, stalled(stand):
        for _ in range(20):
            await comfy.say("large", text="x" * MEGABYTE)

        await until(lambda: stand.stats.overflows == 1)
        await until(lambda: stand.stats.client_sockets == 0)
        await until(lambda: stand.stats.upstream_sockets == 0)


async def test_a_stalled_tab_does_not_slow_the_other_or_the_server(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url) as stand, stalled(stand):
        quick = await stand.connect()
        listening = asyncio.ensure_future(quick.hear_kind("that is all"))

        await say_previews(comfy, [MEGABYTE // 2] * 60)
        await comfy.say("that is all")
        await listening

        assert len([said for said in quick.said if isinstance(said, bytes)]) == 60
        assert len(quick.of("progress")) == 60
        assert stand.stats.dropped_previews > 10


async def test_a_stalled_client_does_not_hold_up_the_end_of_the_relay(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url) as stand, stalled(stand):
        await say_previews(comfy, [MEGABYTE] * 20)
        await until(lambda: stand.stats.dropped_previews > 0)

        async with asyncio.timeout(1.0):
            await stand.relay.aclose()

        await until(lambda: stand.stats.client_sockets == 0, within_s=1.0)


async def test_pictures_that_are_results_are_never_dropped(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url) as stand, stalled(stand) as slow:
        png = b"\0\0\0\1\0\0\0\2" + bytes(MEGABYTE)
        for _ in range(12):
            await comfy.say_bytes(png)
        await say_previews(comfy, [MEGABYTE] * 12)
        await comfy.say("that is all")
        await until(lambda: stand.stats.dropped_previews > 0)

        await slow.hear_kind("that is all")

        assert slow.said.count(png) == 12


async def test_what_waits_for_a_page_to_come_back_is_bounded(comfy: ScriptedComfy) -> None:
    limits = replace(QUICK, event_budget_bytes=100_000, linger_s=2.0)
    async with relay_before(comfy.url, limits) as stand:
        first = await stand.connect()
        await first.socket.close()
        await until(lambda: stand.stats.client_sockets == 0)

        for number in range(30):
            await comfy.say("large", number=number, text="x" * 10_000)
        await until(lambda: stand.stats.dropped_events >= 19)
        second = await stand.connect()
        await comfy.say("that is all")
        await second.hear_kind("that is all")

        assert [large["number"] for large in second.of("large")] == list(range(len(second.of("large"))))
        assert len(second.of("large")) + stand.stats.dropped_events == 30


async def test_messages_for_a_server_that_does_not_come_back_are_bounded(
    comfy: ScriptedComfy, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay_before(comfy.url, replace(QUICK, uplink_budget_bytes=1000)) as stand:
        client = await stand.connect()
        comfy.refuses_with = 502
        comfy.drop()
        await until(lambda: stand.stats.upstream_sockets == 0)

        for number in range(5):
            await client.say("hello", {"number": number, "text": "x" * 400})
        await until(lambda: "is dropped" in caplog.text)
        comfy.refuses_with = None
        await until(lambda: comfy.heard)

        assert [said["data"]["number"] for said in comfy.heard if isinstance(said, dict)] == [0, 1, 2]
