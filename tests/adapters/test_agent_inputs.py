"""Input files in parts, through the real agent and through ones that misbehave."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from comfy_gateway.adapters.agent_inputs import HttpAgentInputs
from comfy_gateway.core.errors import AgentUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import AgentPlace
from comfy_gateway.core.inputs.uploads import Content
from tests.agent.stand import TOKEN, agent_at
from tests.contract.loopback import answering

PART_BYTES = 1024 * 1024
FILE = FileName("big ü (1).mp4", "sub", "input")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as opened:
        yield opened


def sender(session: aiohttp.ClientSession, part_bytes: int = PART_BYTES) -> HttpAgentInputs:
    return HttpAgentInputs(session, part_bytes=part_bytes, pause_s=0.01)


def source(tmp_path: Path, size_bytes: int = 2_500_000, seed: bytes = b"s") -> tuple[Path, Content]:
    data = b"".join(hashlib.sha256(seed + bytes(str(n), "ascii")).digest() for n in range(size_bytes // 32))
    path = tmp_path / f"kept-{seed.decode()}"
    path.write_bytes(data)
    return path, Content(hashlib.sha256(data).hexdigest(), len(data))


def comfy_home(tmp_path: Path) -> Path:
    for name in ("output", "input", "user"):
        (tmp_path / "comfy" / name).mkdir(parents=True, exist_ok=True)
    return tmp_path / "comfy"


async def test_a_file_arrives_in_parts_and_a_second_time_for_nothing(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path, content = source(tmp_path)
    home = comfy_home(tmp_path)
    async with agent_at(home, AGENT_MAX_PART_BYTES=str(PART_BYTES)) as agent:
        place = AgentPlace(f"{agent.url}/metrics", TOKEN)
        for _ in range(2):
            assert await sender(session).put_input(place, FILE, path, content, replace=False)
            assert (home / "input/sub" / FILE.filename).read_bytes() == path.read_bytes()


async def test_a_part_that_is_too_large_is_made_smaller(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path, content = source(tmp_path, 5_000_000)
    home = comfy_home(tmp_path)
    async with agent_at(home, AGENT_MAX_PART_BYTES="1100000") as agent:
        place = AgentPlace(f"{agent.url}/metrics", TOKEN)
        assert await sender(session, 4 * PART_BYTES).put_input(place, FILE, path, content, replace=False)
    assert (home / "input/sub" / FILE.filename).read_bytes() == path.read_bytes()


async def test_another_file_of_the_name_is_left_alone_unless_it_is_to_be_replaced(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path, content = source(tmp_path)
    home = comfy_home(tmp_path)
    there = home / "input/sub" / FILE.filename
    there.parent.mkdir(parents=True)
    there.write_bytes(b"somebody else's")
    async with agent_at(home) as agent:
        place = AgentPlace(f"{agent.url}/metrics", TOKEN)
        assert not await sender(session).put_input(place, FILE, path, content, replace=False)
        assert there.read_bytes() == b"somebody else's"
        assert await sender(session).put_input(place, FILE, path, content, replace=True)
        assert there.read_bytes() == path.read_bytes()


async def test_a_broken_transfer_goes_on_where_it_was(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A proxy in front of the agent cuts the first two parts in their middle."""
    path, content = source(tmp_path)
    home = comfy_home(tmp_path)
    async with agent_at(home, AGENT_MAX_PART_BYTES=str(PART_BYTES)) as agent:
        received_bytes = 0
        cuts = 2

        async def cut(request: web.Request) -> web.StreamResponse:
            nonlocal cuts, received_bytes
            body = await request.read()
            is_cut = request.method == "PUT" and cuts > 0
            if is_cut:
                cuts, body = cuts - 1, body[: len(body) // 2]
            received_bytes += len(body)
            headers = {"Authorization": request.headers["Authorization"]}
            async with session.request(
                request.method, agent.url + request.raw_path, data=body or None, headers=headers
            ) as answer:
                told = await answer.read()
            if is_cut:
                assert request.transport is not None
                request.transport.abort()
            return web.Response(status=answer.status, body=told)

        async with answering(cut, max_body_bytes=2 * PART_BYTES) as url:
            place = AgentPlace(f"{url}/metrics", TOKEN)
            assert await sender(session).put_input(place, FILE, path, content, replace=False)
    assert (home / "input/sub" / FILE.filename).read_bytes() == path.read_bytes()
    assert received_bytes == content.size_bytes  # nothing was sent twice


async def test_what_an_earlier_attempt_left_is_used(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    path, content = source(tmp_path)
    home = comfy_home(tmp_path)
    async with agent_at(home) as agent:
        query = {"total": str(content.size_bytes), "sha256": content.sha256, "offset": "0"}
        async with agent.client.put(
            "/files/input/sub/" + FILE.filename, params=query, data=path.read_bytes()[:999]
        ):
            pass
        place = AgentPlace(f"{agent.url}/metrics", TOKEN)
        assert await sender(session).put_input(place, FILE, path, content, replace=False)
    assert (home / "input/sub" / FILE.filename).read_bytes() == path.read_bytes()


async def test_bytes_that_are_not_what_was_promised_are_given_up(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path, content = source(tmp_path)
    home = comfy_home(tmp_path)
    async with agent_at(home) as agent:
        place = AgentPlace(f"{agent.url}/metrics", TOKEN)
        with pytest.raises(AgentUnavailable, match="other bytes"):
            await sender(session).put_input(
                place, FILE, path, Content("0" * 64, content.size_bytes), replace=False
            )
        with pytest.raises(AgentUnavailable, match="broke off"):
            await sender(session).put_input(
                place, FILE, path, Content("1" * 64, content.size_bytes + 1), replace=False
            )
    assert not (home / "input/sub" / FILE.filename).exists()


async def test_a_name_that_the_agent_refuses_and_a_wrong_token_are_said(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path, content = source(tmp_path)
    async with agent_at(comfy_home(tmp_path)) as agent:
        with pytest.raises(AgentUnavailable, match="name"):
            await sender(session).put_input(
                AgentPlace(f"{agent.url}/metrics", TOKEN),
                FileName(".x", "", "input"),
                path,
                content,
                replace=False,
            )
        with pytest.raises(AgentUnavailable, match="token") as caught:
            await sender(session).put_input(
                AgentPlace(f"{agent.url}/metrics", "wrong"), FILE, path, content, replace=False
            )
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (507, b'{"error": "full"}', "no room"),
        (404, b"", "take files"),
        (500, b"oops", "500"),
        (409, b'{"error": "another request is sending this file"}', "409"),
        (409, b'{"error": "go on", "received_bytes": 0}', "409"),
        (200, b'{"state": "partial", "received_bytes": true}', "200"),
        (413, b"", "413"),
        (302, b"", "302"),
    ],
)
async def test_an_agent_that_never_takes_it_is_given_up(
    session: aiohttp.ClientSession, tmp_path: Path, status: int, body: bytes, words: str
) -> None:
    path, content = source(tmp_path)

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with answering(refuse) as url:
        with pytest.raises(AgentUnavailable, match=words):
            await sender(session).put_input(
                AgentPlace(f"{url}/metrics", TOKEN), FILE, path, content, replace=False
            )


async def test_a_pod_that_is_gone_is_said(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    path, content = source(tmp_path)
    with pytest.raises(AgentUnavailable, match="broke off"):
        await sender(session).put_input(
            AgentPlace("http://127.0.0.1:9/metrics", TOKEN), FILE, path, content, replace=False
        )
