"""What ``HttpComfyServer`` makes of a ComfyUI server, and of what only looks like one."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.ports import ComfyServer, PromptAnswer, QueueIds
from comfy_gateway.core.prompts.catalogue import Catalogue
from comfy_gateway.core.prompts.prompts import Outcome, outcome_of_history
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from simulators.comfyui import ComfySimulator, serve
from tests.conditions import wait_for
from tests.contract.loopback import answering, saying

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
FAILURE = {"1": {"class_type": "SimFail", "inputs": {}}}
SLEEP = PICTURE | {"2": {"class_type": "SimSleep", "inputs": {"seconds": 0, "steps": 1}}}


def backend(url: str, token: str | None = None) -> Backend:
    return Backend("duty-0", Source.DUTY, Upstream.parse(url), token)


def server_of(session: aiohttp.ClientSession, timeout_s: float = 5) -> ComfyServer:
    return HttpComfyServer(session, timeout_s, submit_timeout_s=timeout_s, object_info_timeout_s=timeout_s)


class Story:
    """A simulated server, and what the reader says about it."""

    def __init__(self, session: aiohttp.ClientSession, simulator: ComfySimulator, url: str) -> None:
        self.simulator = simulator
        self.server = server_of(session)
        self.duty = backend(url)

    async def submit(self, nodes: object, prompt_id: str) -> PromptAnswer:
        return await self.server.post_prompt(
            self.duty, orjson.dumps({"prompt": nodes, "prompt_id": prompt_id})
        )

    async def outcome(self, prompt_id: str) -> Outcome | None:
        entry = await self.server.entry(self.duty, prompt_id)
        return None if entry is None else outcome_of_history(entry)


@pytest.fixture
async def story(session: aiohttp.ClientSession) -> AsyncIterator[Story]:
    simulator = ComfySimulator()
    async with serve(simulator) as served:
        yield Story(session, simulator, served.url)


async def test_endings_are_told_by_the_history(story: Story) -> None:
    await story.submit(PICTURE, "good")
    await story.submit(FAILURE, "bad")
    assert await wait_for(lambda: story.outcome("good"), "the good one's ending") is Outcome.DONE
    assert await wait_for(lambda: story.outcome("bad"), "the bad one's ending") is Outcome.ERROR
    assert await story.server.entry(story.duty, "never/heard of") is None
    assert await story.server.queue(story.duty) == QueueIds(frozenset(), frozenset())
    fates = await story.server.fates(story.duty, ["good", "never"])
    assert fates["never"] is None
    assert fates["good"] == await story.server.entry(story.duty, "good")


async def test_the_node_classes_come_as_the_server_wrote_them(story: Story) -> None:
    catalogue = Catalogue.read(await story.server.object_info(story.duty))
    assert catalogue.knows("SaveImage")
    assert catalogue.upload_inputs("LoadImage") == {"image"}


async def test_what_runs_or_waits_has_no_fate_yet_and_can_be_taken_back(story: Story) -> None:
    story.simulator.mood.paused = True
    for prompt_id in ("running", "waiting", "unwanted"):
        await story.submit(SLEEP, prompt_id)

    async def runs() -> bool:
        return "running" in (await story.server.queue(story.duty)).running

    await wait_for(runs, "the first one to run")
    queue = await story.server.queue(story.duty)
    assert queue == QueueIds(frozenset({"running"}), frozenset({"waiting", "unwanted"}))
    assert set(queue.numbers) == {"running", "waiting", "unwanted"}
    assert "waiting" in queue
    assert "other" not in queue
    assert await story.server.fates(story.duty, ["running", "waiting"]) == {}
    await story.server.delete_queued(story.duty, ["unwanted", "never heard of"])
    assert await story.server.fates(story.duty, ["waiting", "unwanted"]) == {"unwanted": None}
    await story.server.interrupt(story.duty, "waiting")  # does not run: nothing happens
    await story.server.interrupt(story.duty, "running")
    story.simulator.mood.paused = False
    assert await wait_for(lambda: story.outcome("running"), "the interrupted one") is Outcome.INTERRUPTED
    assert await wait_for(lambda: story.outcome("waiting"), "the other one") is Outcome.DONE


async def test_without_an_id_whoever_runs_is_interrupted(story: Story) -> None:
    story.simulator.mood.paused = True
    await story.submit(SLEEP, "running")

    async def runs() -> bool:
        return "running" in (await story.server.queue(story.duty)).running

    await wait_for(runs, "it to run")
    await story.server.interrupt(story.duty, None)
    story.simulator.mood.paused = False
    assert await wait_for(lambda: story.outcome("running"), "the interrupted one") is Outcome.INTERRUPTED


async def test_a_prompt_is_accepted_or_refused_in_the_servers_words(story: Story) -> None:
    accepted = await story.submit(PICTURE, "chosen")
    assert (accepted.status, accepted.prompt_id) == (200, "chosen")
    assert set(accepted.document) == {"prompt_id", "number", "node_errors"}
    refused = await story.submit({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "other")
    assert (refused.status, refused.prompt_id) == (400, None)
    assert "error" in refused.document


async def test_a_history_with_numbers_that_are_none_is_read(session: aiohttp.ClientSession) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(text='{"p": {"outputs": {"1": {"text": [NaN]}}}}')

    async with answering(handle) as origin:
        entry = await server_of(session).entry(backend(origin), "p")
    assert entry is not None
    assert entry["outputs"]["1"]["text"][0] != entry["outputs"]["1"]["text"][0]


ASK: dict[str, Callable[[ComfyServer, Backend], Any]] = {
    "queue": lambda server, duty: server.queue(duty),
    "entry": lambda server, duty: server.entry(duty, "p"),
    "fates": lambda server, duty: server.fates(duty, ["p"]),
    "post": lambda server, duty: server.post_prompt(duty, b"{}"),
}
ORDER: dict[str, Callable[[ComfyServer, Backend], Any]] = {
    "delete": lambda server, duty: server.delete_queued(duty, ["p"]),
    "interrupt": lambda server, duty: server.interrupt(duty, None),
    "object_info": lambda server, duty: server.object_info(duty),
}
NO_ANSWERS: dict[str, Callable[[], web.Response]] = {
    "a list": lambda: web.json_response([]),
    "a page": lambda: web.Response(text="<html>"),
    "brackets without end": lambda: web.Response(text="[" * 100_000),
    "a proxy": lambda: web.Response(status=502),
    "a redirect": lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
}


@pytest.mark.parametrize("call", ASK.values(), ids=ASK.keys())
@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer_says_nothing(
    session: aiohttp.ClientSession,
    answer: Callable[[], web.Response],
    call: Callable[[ComfyServer, Backend], Any],
) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return answer()

    async with answering(handle) as origin:
        with pytest.raises(BackendUnavailable) as failure:
            await call(server_of(session), backend(origin))
    assert "127.0.0.1" not in str(failure.value)


@pytest.mark.parametrize(
    "queue",
    [
        {"queue_running": 1},
        {"queue_running": [], "queue_pending": None},
        {"queue_running": [[1]], "queue_pending": []},
    ],
    ids=["half a queue", "no list", "entries without ids"],
)
async def test_a_queue_of_another_shape_says_nothing(session: aiohttp.ClientSession, queue: object) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(queue)

    async with answering(handle) as origin:
        with pytest.raises(BackendUnavailable):
            await server_of(session).queue(backend(origin))


@pytest.mark.parametrize("status", [302, 403, 502])
@pytest.mark.parametrize("call", ORDER.values(), ids=ORDER.keys())
async def test_an_order_that_was_not_taken_is_no_success(
    session: aiohttp.ClientSession, call: Callable[[ComfyServer, Backend], Any], status: int
) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with answering(handle) as origin:
        with pytest.raises(BackendUnavailable):
            await call(server_of(session), backend(origin))


@pytest.mark.parametrize("call", (ASK | ORDER).values(), ids=(ASK | ORDER).keys())
async def test_a_server_that_says_nothing_or_is_not_there_is_given_up(
    session: aiohttp.ClientSession, call: Callable[[ComfyServer, Backend], Any]
) -> None:
    async with saying(None) as origin:
        with pytest.raises(BackendUnavailable):
            await call(server_of(session, timeout_s=0.2), backend(origin))
    with pytest.raises(BackendUnavailable):
        await call(server_of(session), backend(origin))


async def test_the_token_goes_to_the_pod_with_the_question(session: aiohttp.ClientSession) -> None:
    seen: list[tuple[str, str | None]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.headers.get("X-Comfy-Gateway-Token")))
        return web.json_response({"queue_running": [], "queue_pending": []})

    async with answering(handle) as origin:
        server = server_of(session)
        await server.queue(backend(origin, "secret"))
        await server.post_prompt(backend(origin, "secret"), b"{}")
        await server.queue(backend(origin))
    assert seen == [("GET", "secret"), ("POST", "secret"), ("GET", None)]
