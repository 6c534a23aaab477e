"""What ``HttpPromptStates`` makes of a ComfyUI server, and of what only looks like one."""

from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from comfy_gateway.adapters.comfyui import HttpPromptStates
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.prompts import Outcome
from comfy_gateway.core.upstream import Backend, Source, Upstream
from simulators.comfyui import ComfySimulator, serve
from tests.conditions import wait_for

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
FAILURE = {"1": {"class_type": "SimFail", "inputs": {}}}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def backend(url: str, token: str | None = None) -> Backend:
    return Backend("duty-0", Source.DUTY, Upstream.parse(url), token)


async def test_endings_and_queue_of_a_server(http: aiohttp.ClientSession) -> None:
    simulator = ComfySimulator()
    async with serve(simulator) as served:
        states = HttpPromptStates(http, 5)
        duty = backend(served.url)

        async def submit(nodes: object, prompt_id: str) -> None:
            body = {"prompt": nodes, "prompt_id": prompt_id}
            async with http.post(f"{served.url}prompt", json=body) as answer:
                assert answer.status == 200

        async def ending(prompt_id: str) -> Outcome | None:
            return await states.ending(duty, prompt_id)

        await submit(PICTURE, "good")
        await submit(FAILURE, "bad")
        assert await wait_for(lambda: ending("good"), "the good one's ending") is Outcome.DONE
        assert await wait_for(lambda: ending("bad"), "the bad one's ending") is Outcome.ERROR
        assert await ending("never/heard of") is None
        assert await states.queued_ids(duty) == frozenset()

        simulator.mood.paused = True
        await submit(
            PICTURE | {"2": {"class_type": "SimSleep", "inputs": {"seconds": 0, "steps": 1}}}, "running"
        )
        await submit(PICTURE, "waiting")
        assert await states.queued_ids(duty) == {"running", "waiting"}
        assert await ending("waiting") is None
        async with http.post(f"{served.url}interrupt", json={"prompt_id": "running"}) as answer:
            assert answer.status == 200
        simulator.mood.paused = False
        assert await wait_for(lambda: ending("running"), "the interrupted one") is Outcome.INTERRUPTED


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({"queue_running": 1}),
        lambda: web.json_response([]),
        lambda: web.json_response({"queue_running": [[1]], "queue_pending": []}),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(status=502),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
    ],
    ids=["half a queue", "a list", "entries without ids", "a page", "a proxy", "a redirect"],
)
async def test_what_is_no_answer_says_nothing(
    http: aiohttp.ClientSession, answer: Callable[[], web.Response]
) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with TestServer(app) as server:
        states = HttpPromptStates(http, 5)
        with pytest.raises(BackendUnavailable) as failure:
            await states.queued_ids(backend(str(server.make_url("/"))))
        assert "127.0.0.1" not in str(failure.value)


async def test_a_history_of_another_shape_says_nothing(http: aiohttp.ClientSession) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response([])

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with TestServer(app) as server:
        with pytest.raises(BackendUnavailable):
            await HttpPromptStates(http, 5).ending(backend(str(server.make_url("/"))), "p1")


async def test_the_token_goes_to_the_pod_with_the_question(http: aiohttp.ClientSession) -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("X-Comfy-Gateway-Token"))
        return web.json_response({"queue_running": [], "queue_pending": []})

    app = web.Application()
    app.router.add_get("/queue", handle)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        states = HttpPromptStates(http, 5)
        await states.queued_ids(backend(url, "secret"))
        await states.queued_ids(backend(url))
    assert seen == ["secret", None]
