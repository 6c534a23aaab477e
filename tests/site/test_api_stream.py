"""Changes as they happen, on a real socket."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

from comfy_gateway.core.life.session import State
from comfy_gateway.core.people.roles import Role
from comfy_gateway.site.api import stream
from comfy_gateway.site.api.models import session_id
from tests.service.world import ALICE
from tests.site.api_stand import API, BOSS, Api, api, kind

SESSION = f"session/{session_id(ALICE)}"


async def event_of(response: aiohttp.ClientResponse) -> tuple[str, list[dict[str, Any]]]:
    """The next event; comments are passed over."""
    async with asyncio.timeout(20):
        while True:
            text = await response.content.readuntil(b"\n\n")
            if not text.startswith(b":"):
                name, data = text.rstrip().split(b"\n")
                return name.decode().removeprefix("event: "), orjson.loads(data.removeprefix(b"data: "))


async def opened(ask: Api, path: str = f"{API}/stream") -> aiohttp.ClientResponse:
    response = await ask.http.get(ask.url + path, headers=ask.headers(BOSS, Role.OPERATOR))
    assert (response.status, response.content_type) == (200, "text/event-stream")
    return response


@pytest.mark.parametrize("path", [f"{API}/stream", stream.EVENTS_PATH])
async def test_all_is_told_first_and_then_every_step_of_a_life(path: str) -> None:
    async with api() as ask:
        response = await opened(ask, path)
        name, told = await event_of(response)
        assert (name, [one["id"] for one in told]) == ("first", ["duty/duty-0"])
        ask.world.burst()
        known: dict[str, Any] = {}
        for state in (State.BOOTING, State.READY):
            await ask.world.until(state)
            while known.get("state") != state:
                await ask.world.clock.advance(stream.TICK_S)
                name, told = await event_of(response)
                assert name == "changes"
                for one in told:
                    known |= one if one["id"] == SESSION else {}
        assert known["gpu"] == "RTX 4090"
        response.close()


async def test_a_quiet_stream_shows_that_it_lives_and_ends_after_its_time() -> None:
    async with api() as ask:
        response = await opened(ask)
        await event_of(response)
        reading = asyncio.ensure_future(response.content.read())
        await ask.world.clock.advance_until(reading.done, within_s=stream.LIFE_S + 60)
        rest = reading.result()
        assert rest == b":\n\n" * len(rest.split(b"\n\n")[:-1])
        assert len(rest) > 3


async def test_so_many_streams_and_no_more_and_who_goes_makes_room() -> None:
    async with api() as ask:
        held = [await opened(ask) for _ in range(stream.MOST_STREAMS)]
        status, refusal = await ask.boss("GET", "/stream")
        assert (status, kind(refusal)) == (503, "too_many_streams")
        held.pop().close()
        async with asyncio.timeout(20):
            while True:
                again = await ask.http.get(f"{ask.url}{API}/stream", headers=ask.headers(BOSS, Role.OPERATOR))
                if again.status == 200:
                    break
                again.release()
                await asyncio.sleep(0.01)
        for response in (*held, again):
            response.close()
