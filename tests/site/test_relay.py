"""One client and one server: the handshake, frames both ways, the end."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.prompts import Outcome
from tests.site.relay_stand import (
    ALICE,
    KEYS,
    QUICK,
    ScriptedComfy,
    Stand,
    pod,
    relay_before,
    until,
)


@pytest.fixture
async def comfy() -> AsyncIterator[ScriptedComfy]:
    async with ScriptedComfy().serving() as served:
        yield served


@pytest.fixture
async def stand(comfy: ScriptedComfy) -> AsyncIterator[Stand]:
    async with relay_before(comfy.url) as standing:
        yield standing


async def test_the_first_message_is_the_status_with_the_clients_own_sid(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    comfy.remaining = 3

    client = await stand.connect(sid="tab")

    assert await client.hear() == {
        "type": "status",
        "data": {"status": {"exec_info": {"queue_remaining": 3}}, "sid": "tab"},
    }


async def test_a_client_without_an_id_is_told_the_one_that_was_made(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect(sid=None)

    status = await client.hear_kind("status")

    assert len(status["sid"]) == 32
    assert list(comfy.registered) == [upstream_sid(KEYS, ALICE, status["sid"])]


async def test_only_the_first_status_names_a_sid(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    await client.hear_kind("status")

    await comfy.say_status(5)

    assert await client.hear() == {
        "type": "status",
        "data": {"status": {"exec_info": {"queue_remaining": 5}}},
    }


async def test_the_server_sees_a_mapped_id_its_own_host_no_origin_and_the_other_queries() -> None:
    async with ScriptedComfy().serving(prefix="/pod%2Fa") as comfy, relay_before(comfy.url) as stand:
        await stand.connect(sid="tab", token="a b&c")

        (request,) = comfy.requests
        assert request.raw_path.startswith("/pod%2Fa/ws?")
        assert dict(request.query) == {"clientId": upstream_sid(KEYS, ALICE, "tab"), "token": "a b&c"}
        assert f"http://{request.host}/pod%2Fa" == comfy.url
        assert "Origin" not in request.headers
        assert "X-Comfy-Gateway-Token" not in request.headers
        assert "Sec-WebSocket-Extensions" not in request.headers


async def test_only_a_pod_is_sent_its_token(comfy: ScriptedComfy, stand: Stand) -> None:
    stand.routes.set_private(ALICE, pod(comfy.url, token="secret"))

    await stand.connect()

    (request,) = comfy.requests
    assert request.headers["X-Comfy-Gateway-Token"] == "secret"


async def test_events_pass_exactly_and_in_order(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    text = struct.pack(">II", 3, 1) + b"9words"

    await comfy.say("executing", node="9", prompt_id="p", display_node="9")
    await comfy.say_bytes(text)
    await comfy.say("gateway.unknown", anything=[1, None, "ä"])
    await comfy.socket.send_str('{"type": "odd",   "data": 1.50}')
    await comfy.socket.send_str("no JSON at all")
    heard = [await client.hear() for _ in range(3)]
    odd = [(await client.socket.receive()).data for _ in range(2)]

    assert heard == [
        {"type": "executing", "data": {"node": "9", "prompt_id": "p", "display_node": "9"}},
        text,
        {"type": "gateway.unknown", "data": {"anything": [1, None, "ä"]}},
    ]
    assert odd == ['{"type": "odd",   "data": 1.50}', "no JSON at all"]


async def test_what_the_client_says_reaches_the_server(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()

    await client.say("hello", {"x": 1})
    await client.socket.send_bytes(b"\0\1")
    await until(lambda: len(comfy.heard) == 2)

    assert comfy.heard == [{"type": "hello", "data": {"x": 1}}, b"\0\1"]


async def test_a_message_of_100_mb_passes(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    payload = struct.pack(">II", 1, 2) + bytes(100 * 1024 * 1024)

    await asyncio.gather(comfy.say_bytes(payload), client.hear())

    assert client.said[-1] == payload


async def test_a_client_may_send_4_mb_but_not_more(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    await client.socket.send_bytes(bytes(4 * 1024 * 1024 - 1))
    await until(lambda: len(comfy.heard) == 1)

    with contextlib.suppress(ConnectionError):  # refused at its first bytes
        await client.socket.send_bytes(bytes(4 * 1024 * 1024 + 1))
    await until(lambda: stand.stats.client_sockets == 0)
    await client.socket.close()

    assert len(comfy.heard) == 1


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("execution_success", Outcome.DONE),
        ("execution_error", Outcome.ERROR),
        ("execution_interrupted", Outcome.INTERRUPTED),
    ],
)
async def test_a_verdict_ends_the_prompt_in_the_ledger(
    comfy: ScriptedComfy, stand: Stand, verdict: str, outcome: Outcome
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)

    await comfy.say(verdict, prompt_id="p")
    await client.hear_kind(verdict)

    record = stand.ledger.find("p")
    assert record is not None
    assert record.outcome is outcome


async def test_the_release_alone_ends_the_prompt_of_an_old_server(comfy: ScriptedComfy, stand: Stand) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)

    await comfy.say("executing", node=None, prompt_id="p")
    await client.hear_kind("executing")

    assert stand.ledger.unfinished() == []


async def test_an_ending_that_overtakes_the_acceptance_is_kept_for_it(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    await comfy.say("execution_error", prompt_id="p")
    await comfy.say("executing", node=None, prompt_id="p")
    await client.hear_kind("executing")

    stand.accept("p", stand.duty)

    record = stand.ledger.find("p")
    assert record is not None
    assert record.outcome is Outcome.ERROR


async def test_a_watcher_of_the_ledger_that_fails_costs_nobody_an_event(
    comfy: ScriptedComfy, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    client = await stand.connect()
    stand.accept("p", stand.duty)

    def fail(record: object) -> None:
        raise ValueError("somebody else's fault")

    stand.ledger.watch(fail)
    await comfy.say("execution_success", prompt_id="p")
    await comfy.say("executing", node=None, prompt_id="p")
    await client.hear_kind("executing")

    assert client.story("p") == ["execution_success", "released"]
    assert "somebody else's fault" in caplog.text


async def test_a_server_that_refuses_is_a_502_without_any_address(comfy: ScriptedComfy, stand: Stand) -> None:
    comfy.refuses_with = 403

    status, body = await stand.refusal()

    assert status == 502
    assert body["error"]["type"] == "upstream_unreachable"
    assert "127.0.0.1" not in str(body)


async def test_a_dead_server_is_a_502() -> None:
    async with ScriptedComfy().serving() as comfy:
        url = comfy.url
    async with relay_before(url) as stand:
        status, body = await stand.refusal()

        assert status == 502
        assert url.rpartition(":")[2] not in str(body)
        await until(lambda: not any("relay" in task.get_name() for task in asyncio.all_tasks()))


async def test_a_server_that_does_not_answer_is_a_504(comfy: ScriptedComfy) -> None:
    limits = replace(QUICK, connect_timeout_s=0.2)
    async with relay_before(comfy.url, limits) as stand:
        comfy.answers.clear()

        status, body = await stand.refusal()

        assert status == 504
        assert body["error"]["type"] == "upstream_timeout"


async def test_a_client_gets_through_as_soon_as_the_server_is_back(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    comfy.refuses_with = 502
    assert (await stand.refusal())[0] == 502
    comfy.refuses_with = None

    client = await stand.connect()

    assert await client.hear_kind("status")


async def test_a_redirect_is_not_followed_with_the_token(comfy: ScriptedComfy, stand: Stand) -> None:
    stand.routes.set_private(ALICE, pod(comfy.url, token="secret"))
    comfy.refuses_with = 302

    status, _ = await stand.refusal()

    assert status == 502
    assert all(request.path == "/ws" for request in comfy.requests)


async def test_a_request_that_is_no_websocket_is_a_400(comfy: ScriptedComfy, stand: Stand) -> None:
    async with stand.http.get(f"{stand.url}/ws") as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "websocket_expected"
    assert comfy.requests == []


async def test_the_closing_relay_says_1001_within_a_second(comfy: ScriptedComfy, stand: Stand) -> None:
    clients = [await stand.connect(sid=f"tab-{number}") for number in range(5)]

    async with asyncio.timeout(1.0):
        await asyncio.gather(stand.relay.aclose(), *(client.hear_all_until_closed() for client in clients))

    assert {client.close_code for client in clients} == {aiohttp.WSCloseCode.GOING_AWAY}
    assert comfy.registered == {}
    assert stand.stats.client_sockets == stand.stats.upstream_sockets == 0


async def test_a_user_who_is_dismissed_loses_all_sockets_and_nobody_else_any(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    alices = [await stand.connect(sid=f"tab-{number}") for number in range(2)]
    bobs = await stand.connect(UserId(IdKind.NAMED, "bob"), "tab-0")
    stand.relay.dismiss(ALICE)
    async with asyncio.timeout(1.0):
        await asyncio.gather(*(client.hear_all_until_closed() for client in alices))
    assert {client.close_code for client in alices} == {aiohttp.WSCloseCode.GOING_AWAY}
    again = await stand.connect(sid="tab-0")
    await again.hear_kind("status")
    assert bobs.close_code is None
    await bobs.hear_kind("status")
    assert stand.stats.client_sockets == 2


async def test_the_closing_relay_does_not_wait_for_those_who_do_not_answer(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    await stand.connect(sid="reads nothing")
    comfy.answers.clear()
    connecting = asyncio.ensure_future(stand.refusal(sid="waits"))
    await until(lambda: len(comfy.requests) == 2)

    async with asyncio.timeout(1.0):
        await stand.relay.aclose()

    assert (await connecting)[0] == 503


async def test_a_closed_relay_takes_nobody_in(stand: Stand) -> None:
    await stand.relay.aclose()

    status, body = await stand.refusal()

    assert status == 503
    assert body["error"]["type"] == "gateway_closing"


async def test_the_servers_socket_is_closed_some_time_after_the_client_left(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    client = await stand.connect()
    await client.socket.close()

    await until(lambda: stand.stats.client_sockets == 0)
    assert stand.stats.upstream_sockets == 1
    await until(lambda: stand.stats.upstream_sockets == 0)

    assert comfy.registered == {}


async def test_a_client_that_vanishes_is_no_error(
    comfy: ScriptedComfy, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    sending = asyncio.ensure_future(comfy.say_bytes(bytes(20 * 1024 * 1024)))
    await asyncio.sleep(0)

    client.socket._response.close()
    await until(lambda: stand.stats.client_sockets == 0)
    await sending

    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


async def test_two_hundred_sockets_leave_nothing_behind(comfy: ScriptedComfy, stand: Stand) -> None:
    async def come_and_go(number: int) -> None:
        client = await stand.connect(sid=f"tab-{number}")
        await client.hear_kind("status")
        if number % 2:
            await client.socket.close()
        else:
            client.socket._response.close()

    await come_and_go(0)
    await until(lambda: stand.stats.upstream_sockets == 0)
    tasks_before = len(asyncio.all_tasks())

    for begin in range(1, 200, 50):
        await asyncio.gather(*(come_and_go(number) for number in range(begin, begin + 50)))
    await until(lambda: stand.stats.client_sockets == stand.stats.upstream_sockets == 0)

    await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
    await until(lambda: comfy.registered == {} and not any(comfy.open.values()))
    assert len(comfy.open) == 201
    assert set(comfy.most_open.values()) == {1}


async def test_a_silent_client_that_answers_no_ping_is_cut(comfy: ScriptedComfy) -> None:
    limits = replace(QUICK, ping_s=0.05)
    async with relay_before(comfy.url, limits) as stand:
        alive = await stand.connect(sid="alive")
        await stand.connect(sid="dead", autoping=False)  # reads nothing, so it answers no ping either
        listening = asyncio.ensure_future(alive.hear_kind("x"))
        await until(lambda: stand.stats.client_sockets == 2)

        await until(lambda: stand.stats.client_sockets == 1)

        await comfy.registered[upstream_sid(KEYS, ALICE, "alive")].send_json({"type": "x", "data": {}})
        assert await listening == {}


async def test_a_clients_ping_is_answered(stand: Stand) -> None:
    client = await stand.connect(autoping=False)
    await client.hear_kind("status")

    await client.socket.ping(b"are you there")

    message = await client.socket.receive()
    assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"are you there")


async def test_a_client_that_does_not_wait_for_the_handshake_leaves_nothing(
    comfy: ScriptedComfy, stand: Stand
) -> None:
    comfy.answers.clear()
    impatient = asyncio.ensure_future(stand.connect())
    await until(lambda: comfy.requests)
    impatient.cancel()
    await asyncio.wait([impatient])

    comfy.answers.set()
    await until(lambda: comfy.opened)

    await until(lambda: not any("relay" in task.get_name() for task in asyncio.all_tasks()))
    assert comfy.registered == {}


async def test_a_site_that_ends_before_the_relay_cuts_its_clients(stand: Stand) -> None:
    client = await stand.connect()
    await client.hear_kind("status")
    assert stand.runner is not None

    await stand.runner.cleanup()
    await client.hear_all_until_closed()

    assert stand.stats.client_sockets == 0
