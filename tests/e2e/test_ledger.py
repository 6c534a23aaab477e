"""What the ledger knows when everything around it breaks off: a real gateway that is killed, and its client too."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.conditions import wait_for
from tests.contract.loopback import answering
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, picture

KEY = "sk-this-is-the-key-of-alice"
ALICE, BOB = {"X-Comfy-User": "alice"}, {"X-Comfy-User": "bob"}


@dataclass
class SlowAnswers:
    """Before a server: what it says to prompts is held back."""

    url: str
    is_open: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def slow_answers(server: Duty, http: aiohttp.ClientSession) -> AsyncIterator[SlowAnswers]:
    async def forward(request: web.Request) -> web.Response:
        url = f"{server.url.rstrip('/')}{request.raw_path}"
        async with http.request(request.method, url, data=await request.read()) as answer:
            body = await answer.read()
            if request.method == "POST":
                await held.is_open.wait()
            return web.Response(status=answer.status, body=body, content_type=answer.content_type)

    held = SlowAnswers("")
    async with answering(forward) as origin:
        held.url = origin
        yield held


def body(prompt_id: str, seed: int) -> dict[str, Any]:
    return {"prompt": picture(seed), "prompt_id": prompt_id, "extra_data": {"api_key_comfy_org": KEY}}


async def test_a_prompt_is_known_though_gateway_or_client_die_between_its_sending_and_its_answer(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def arrived(count: int) -> bool:
        return len(duty.sim.accepted) == count

    async def post(
        url: str, prompt_id: str, headers: dict[str, str], seed: int = 0
    ) -> tuple[int, dict[str, Any]]:
        async with http.post(f"{url}/prompt", json=body(prompt_id, seed), headers=headers) as answer:
            return answer.status, await answer.json()

    async with slow_answers(duty, http) as held:
        settings = {"DUTY_POD_URL": held.url, "RUNPOD_PROMPT_THRESHOLD_COUNT": "100"}
        async with start_gateway("-w", str(tmp_path / "first.mitm"), **settings) as gateway:
            sending = asyncio.ensure_future(post(gateway.url, "killed", ALICE))
            await wait_for(lambda: arrived(1), "the prompt at the server")
            await gateway.stop(signal.SIGKILL)
            await asyncio.wait([sending])
            assert isinstance(sending.exception(), aiohttp.ClientError)
            logs = gateway.log

        async with start_gateway("-w", str(tmp_path / "second.mitm"), **settings) as gateway:
            assert (await post(gateway.url, "killed", BOB))[0] == 409
            answer = {"prompt_id": "killed", "number": 1, "node_errors": {}}
            assert await post(gateway.url, "killed", ALICE) == (200, answer)

            leaving = asyncio.ensure_future(post(gateway.url, "left", ALICE, seed=1))
            await wait_for(lambda: arrived(2), "the second prompt at the server")
            leaving.cancel()
            await asyncio.wait([leaving])
            assert await post(gateway.url, "left", ALICE) == (
                200,
                answer | {"prompt_id": "left", "number": 2},
            )
            held.is_open.set()

            assert (await post(gateway.url, "third", ALICE, seed=2))[1]["number"] == 3
            assert await gateway.stop() == 0
            logs += gateway.log

    assert [sent["prompt_id"] for sent in duty.sim.accepted] == ["killed", "left", "third"]
    assert all(sent["extra_data"]["api_key_comfy_org"] == KEY for sent in duty.sim.accepted)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert b"third" in kept[tmp_path / "second.mitm"]
    assert b"third" in b"".join(content for path, content in kept.items() if "gateway.db" in path.name)
    assert [path for path, content in kept.items() if KEY.encode() in content] == []
    assert KEY not in logs
