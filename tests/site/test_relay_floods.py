"""Clients that send too much, and users who open too many sockets."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from tests.site.relay_stand import ALICE, BOB, QUICK, ScriptedComfy, relay_before, until


@pytest.fixture
async def comfy() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.mark.parametrize("kind", ["text", "bytes", "ping", "pong"])
async def test_a_client_that_sends_too_many_messages_is_told_so_and_others_go_on(
    comfy: ScriptedComfy, kind: str
) -> None:
    async with relay_before(comfy.url, replace(QUICK, client_messages_per_s=2.0)) as stand:
        client, other = await stand.connect(sid="flood"), await stand.connect(BOB, sid="other")
        for _ in range(40):
            match kind:
                case "text":
                    await client.socket.send_str("{}")
                case "bytes":
                    await client.socket.send_bytes(b"x")
                case "ping":
                    await client.socket.ping()
                case _:
                    await client.socket.pong(b"99")
        await client.hear_all_until_closed()
        assert client.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert stand.stats.floods == 1
        assert other.close_code is None
        assert len(comfy.heard) <= 21


async def test_a_client_that_keeps_to_the_rate_stays(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, client_messages_per_s=2.0)) as stand:
        client = await stand.connect()
        for number in range(20):
            await client.say("hello", {"number": number})
        await until(lambda: len(comfy.heard) == 20)
        assert client.close_code is None


async def test_one_socket_too_many_is_refused_until_another_is_closed(comfy: ScriptedComfy) -> None:
    async with relay_before(comfy.url, replace(QUICK, sockets_per_user=2)) as stand:
        first = await stand.connect(sid="one")
        await stand.connect(sid="two")
        status, told = await stand.refusal(sid="three")
        assert (status, told["error"]["type"]) == (429, "too_many_sockets")
        await stand.connect(BOB)
        for sid in ("four", "five"):
            await stand.connect(None, sid=sid)
        assert (await stand.refusal(None, sid="six"))[0] == 429
        await first.socket.close()
        await until(lambda: stand.stats.client_sockets == 4)
        assert (await stand.connect(ALICE, sid="three")).close_code is None
