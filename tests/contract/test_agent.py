"""The promises of ``core.ports.Agent``, over real sockets."""

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comfy_gateway.adapters.agent import HttpAgent
from comfy_gateway.core.errors import AgentUnavailable
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.ports import Agent
from tests.contract.loopback import answering, saying

TOKEN = "f00dcafe" * 8


def message(**changes: Any) -> dict[str, Any]:
    """A telemetry message as the contract has it."""
    return {
        "timestamp": 1795444723.5,
        "uptime_s": 12.0,
        "gpus": [{"index": 0, "name": "RTX", "utilization_percent": 37.0, "memory_used_bytes": None}],
        "cpu_percent": 3.0,
        "comfyui": {"queue_running": 1, "queue_pending": 2},
        "model_sync": {"state": "running", "done_bytes": 0, "total_bytes": 0},
    } | changes


def agent_of(session: aiohttp.ClientSession, timeout_s: float = 5) -> Agent:
    return HttpAgent(session, timeout_s, max_body_bytes=10_000)


async def sample_answer(session: aiohttp.ClientSession, response: web.Response) -> Sample:
    async def answer(_: web.Request) -> web.Response:
        return response

    async with answering(answer) as origin:
        return await agent_of(session).sample(f"{origin}/metrics", token=TOKEN)


async def test_a_sample_is_read_from_the_contracts_message(session: aiohttp.ClientSession) -> None:
    assert await sample_answer(session, web.json_response(message())) == Sample(37.0, 1, 2, synced_bytes=0)


async def test_what_the_agent_cannot_read_stays_unknown(session: aiohttp.ClientSession) -> None:
    sample = await sample_answer(session, web.json_response(message(gpus=[], comfyui=None, model_sync=None)))
    assert sample == Sample(None, None, None)


async def test_the_request_authenticates_and_renews_the_lease(session: aiohttp.ClientSession) -> None:
    seen: list[tuple[str | None, ...]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append(
            (
                request.method,
                request.raw_path,
                headers.get("Authorization"),
                headers.get("X-Comfy-Gateway-Lease"),
                headers.get("X-Comfy-Gateway-Token"),
            )
        )
        return web.json_response(message())

    async with answering(answer) as origin:
        await agent_of(session).sample(f"{origin}/pods/p%201/metrics", token=TOKEN)
    assert seen == [("GET", "/pods/p%201/metrics", f"Bearer {TOKEN}", "1", None)]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (web.json_response(message(), status=401), "401"),
        (web.json_response(message(), status=503), "503"),
        (web.Response(text="<html>"), "JSON"),
        (web.Response(body=b""), "JSON"),
        (web.json_response([]), "no JSON object"),
        (web.json_response({}), "gpus"),
        (web.json_response(message(gpus=[{"utilization_percent": "busy"}])), "utilization_percent"),
        (web.json_response(message(comfyui={"queue_running": -1})), "queue_running"),
        (web.json_response(message(comfyui="off")), "comfyui"),
        (web.json_response(message(padding="x" * 10_000)), "10000 bytes"),
    ],
)
async def test_no_usable_sample_says_why(
    session: aiohttp.ClientSession, response: web.Response, reason: str
) -> None:
    with pytest.raises(AgentUnavailable, match=reason):
        await sample_answer(session, response)


async def test_a_redirect_is_not_followed_and_takes_the_token_nowhere(session: aiohttp.ClientSession) -> None:
    visited = []

    async def elsewhere(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.json_response(message())

    async with answering(elsewhere) as other:
        with pytest.raises(AgentUnavailable, match="302"):
            await sample_answer(session, web.Response(status=302, headers={"Location": f"{other}/metrics"}))
    assert visited == []


async def test_a_silent_agent_is_given_up_at_the_deadline(session: aiohttp.ClientSession) -> None:
    async with saying(None) as origin, asyncio.timeout(5):
        with pytest.raises(AgentUnavailable, match=r"within 0\.2 s"):
            await agent_of(session, timeout_s=0.2).sample(f"{origin}/metrics", token=TOKEN)


@pytest.mark.parametrize("raw", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
async def test_a_broken_agent_is_an_unavailable_agent(session: aiohttp.ClientSession, raw: bytes) -> None:
    async with saying(raw) as origin:
        with pytest.raises(AgentUnavailable):
            await agent_of(session).sample(f"{origin}/metrics", token=TOKEN)


@pytest.mark.parametrize("url", ["", "metrics", "http://", "http://[::1/metrics", "ftp://x/metrics"])
async def test_an_address_that_is_none_is_an_unavailable_agent(
    session: aiohttp.ClientSession, url: str
) -> None:
    with pytest.raises(AgentUnavailable):
        await agent_of(session).sample(url, token=TOKEN)


async def test_the_text_holds_neither_the_address_nor_the_token(session: aiohttp.ClientSession) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(AgentUnavailable) as caught:
        await agent_of(session).sample(f"http://127.0.0.1:{port}/metrics", token=TOKEN)
    assert str(port) not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"agent": "0.1.0", "comfyui": "0.3.64"}', "0.1.0"),
        ('{"agent": null}', None),
        ("[]", None),
        ("<html>", None),
    ],
)
async def test_the_version_is_told_beside_the_telemetry(
    session: aiohttp.ClientSession, body: str, expected: str | None
) -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.path, headers.get("Authorization"), headers.get("X-Comfy-Gateway-Lease")))
        return web.Response(text=body)

    async with answering(answer) as origin:
        version = await agent_of(session).version(f"{origin}/proxy/pod/8000/metrics", token=TOKEN)
    assert version == expected
    assert seen == [("/proxy/pod/8000/version", f"Bearer {TOKEN}", None)]


async def test_an_agent_that_does_not_know_its_version_says_none(session: aiohttp.ClientSession) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async with answering(answer) as origin:
        assert await agent_of(session).version(f"{origin}/metrics", token=TOKEN) is None


async def test_the_end_of_the_log_is_read_with_the_token_and_renews_no_lease(
    session: aiohttp.ClientSession,
) -> None:
    seen: list[tuple[str | None, ...]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.path_qs, headers.get("Authorization"), headers.get("X-Comfy-Gateway-Lease")))
        return web.json_response({"lines": ["one", "two", "three"], "size_bytes": 13})

    async with answering(answer) as origin:
        assert list(await agent_of(session).log(f"{origin}/metrics", token=TOKEN, lines=2)) == [
            "two",
            "three",
        ]
    assert seen == [("/logs?lines=2", f"Bearer {TOKEN}", None)]


@pytest.mark.parametrize("body", ["[]", "{", '{"lines": 1}', '{"lines": [1]}', "{}"])
async def test_a_log_that_is_none_is_refused(session: aiohttp.ClientSession, body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with answering(answer) as origin:
        with pytest.raises(AgentUnavailable) as refused:
            await agent_of(session).log(f"{origin}/metrics", token=TOKEN, lines=2)
    assert "127.0.0.1" not in str(refused.value)


async def test_an_agent_without_a_log_says_so(session: aiohttp.ClientSession) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async with answering(answer) as origin:
        with pytest.raises(AgentUnavailable, match="404"):
            await agent_of(session).log(f"{origin}/metrics", token=TOKEN, lines=2)
