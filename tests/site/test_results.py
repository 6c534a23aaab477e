"""The history of a known prompt for who says no name, and the pictures that it told of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from comfy_gateway.core.prompts import PromptRecord
from comfy_gateway.core.upstream import Backend, Source, Upstream
from comfy_gateway.core.users import IdKind, UserId
from tests.site.site_stand import ALICE, PEER, Site, site_before

TOKEN = "the-token"
PICTURE = {"filename": "a.png", "subfolder": "sub", "type": "temp"}
KEY_OF_PICTURE = ("a.png", "sub", "temp")


class Pod:
    """A server that has one prompt's history and notes who asked how."""

    def __init__(self) -> None:
        self.body: bytes = orjson.dumps({"p1": {"outputs": {"9": {"images": [PICTURE]}}}})
        self.status = 200
        self.seen: list[tuple[str, str | None]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.breaks_off = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.raw_path, request.headers.get("X-Comfy-Gateway-Token")))
        await self.answers.wait()
        if self.breaks_off:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(
            body=self.body, status=self.status, content_type="application/json", headers={"Location": "/x"}
        )


@asynccontextmanager
async def pod_and_site(
    *, timeout_s: float = 10.0, prefix: str = ""
) -> AsyncIterator[tuple[Pod, Site, Backend]]:
    """A pod of Alice's and a site whose duty server is dead."""
    pod = Pod()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pod.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    backend = Backend("pod-1", Source.PRIVATE, Upstream("http", host, port, prefix), TOKEN)
    try:
        async with site_before("http://127.0.0.1:9", timeout_s=timeout_s) as site:
            yield pod, site, backend
    finally:
        await runner.cleanup()


def enter(site: Site, backend: Backend, user: UserId | None = ALICE, prompt_id: str = "p1") -> None:
    if user is not None:
        site.routes.set_private(user, backend)
    site.ledger.accept(PromptRecord(prompt_id, user.key if user else None, "tab", backend.id))


async def ask(site: Site, path: str = "/-/history/p1") -> tuple[int, bytes]:
    async with site.http.get(site.url + path, headers=site.headers, allow_redirects=False) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("prefix", ["", "/behind/it"])
async def test_the_history_comes_from_the_pod_that_has_the_prompt_unchanged(prefix: str) -> None:
    async with pod_and_site(prefix=prefix) as (pod, site, backend):
        enter(site, backend)
        assert await ask(site) == (200, pod.body)
        assert pod.seen == [(f"{prefix}/history/p1", TOKEN)]


async def test_files_that_were_told_lead_the_peer_to_their_server() -> None:
    async with pod_and_site() as (_, site, backend):
        enter(site, backend)
        assert site.told.owner(PEER, KEY_OF_PICTURE, site.routes) is None
        await ask(site)
        assert site.told.owner(PEER, KEY_OF_PICTURE, site.routes) == backend
        assert site.told.owner("10.9.9.9", KEY_OF_PICTURE, site.routes) is None
        site.routes.retire_private(ALICE)
        assert site.told.owner(PEER, KEY_OF_PICTURE, site.routes) == backend, "while it drains"
        site.routes.clear_private(ALICE)
        assert site.told.owner(PEER, KEY_OF_PICTURE, site.routes) is None


ODD: dict[str, Any] = {
    "no JSON": b"<html>",
    "another prompt": {"p2": {"outputs": {"9": {"images": [PICTURE]}}}},
    "a list": [1],
    "no outputs": {"p1": {}},
    "outputs of another shape": {"p1": {"outputs": [1]}},
    "a node of another shape": {"p1": {"outputs": {"9": [1]}}},
    "files of another shape": {
        "p1": {"outputs": {"9": {"text": "a", "images": [1, {"name": "x"}, {"filename": 3}]}}}
    },
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
async def test_an_answer_of_another_shape_is_passed_on_and_tells_of_no_file(answer: Any) -> None:
    async with pod_and_site() as (pod, site, backend):
        pod.body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
        enter(site, backend)
        assert await ask(site) == (200, pod.body)
        assert site.told._told == {}


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_refusal_of_the_server_is_passed_on_and_tells_of_no_file(status: int) -> None:
    async with pod_and_site() as (pod, site, backend):
        pod.status = status
        enter(site, backend)
        assert (await ask(site))[0] == status
        assert site.told._told == {}
        assert len(pod.seen) == 1


async def test_a_server_that_is_late_is_a_504() -> None:
    async with pod_and_site(timeout_s=0.1) as (pod, site, backend):
        pod.answers.clear()
        enter(site, backend)
        status, body = await ask(site)
        assert status == 504
        assert orjson.loads(body)["error"]["type"] == "upstream_timeout"
        pod.answers.set()


async def test_a_server_that_breaks_off_is_a_502_without_its_address() -> None:
    async with pod_and_site() as (pod, site, backend):
        pod.breaks_off = True
        enter(site, backend)
        status, body = await ask(site)
        assert status == 502
        assert b"127.0.0.1" not in body


async def test_a_prompt_that_is_unknown_or_whose_pod_is_gone_is_dutys_matter() -> None:
    async with pod_and_site() as (pod, site, backend):
        assert (await ask(site, "/-/history/unknown"))[0] == 502, "duty is dead here"
        enter(site, backend, UserId(IdKind.NAMED, "bob"))
        site.routes.clear_private(UserId(IdKind.NAMED, "bob"))
        assert (await ask(site))[0] == 502
        assert pod.seen == []


async def test_a_prompt_of_nobody_is_found_on_its_duty_server() -> None:
    async with pod_and_site() as (_, site, _backend):
        enter(site, site.pool.home, None)
        assert (await ask(site))[0] == 502, "asked, and dead"
