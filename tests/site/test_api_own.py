"""``/gateway/api/v1/me`` on a real socket: everybody's own session and nobody else's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from comfy_gateway.core import site_contract
from comfy_gateway.core.identity import IdentityRules
from comfy_gateway.core.own_pod import Policy
from comfy_gateway.core.session import State
from comfy_gateway.core.users import UserId
from comfy_gateway.site.api import OwnPages
from comfy_gateway.site.app import build_app
from comfy_gateway.site.server import SiteServer
from tests.fakes.clock import FakeClock
from tests.service.own_stand import LIBERAL, own_session
from tests.service.world import ALICE, BOB, World

ME = "/gateway/api/v1/me"


class Asking:
    """Asks the site as the hooks do."""

    def __init__(self, world: World, http: aiohttp.ClientSession, url: str) -> None:
        self.world = world
        self._http = http
        self._url = url

    async def __call__(
        self, method: str, path: str, user: UserId | None = ALICE, body: bytes = b""
    ) -> tuple[int, Any]:
        headers = {site_contract.KEY: "k"} | ({} if user is None else {site_contract.USER: user.key})
        async with self._http.request(method, self._url + path, headers=headers, data=body) as response:
            assert response.content_type == "application/json"
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, await response.json()


@asynccontextmanager
async def asking(policy: Policy = LIBERAL) -> AsyncIterator[Asking]:
    world = World(FakeClock())
    server = SiteServer(build_app(key="k", parts=[OwnPages(own_session(world, policy), IdentityRules())]))
    address = await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Asking(world, http, address.url(""))
    finally:
        await server.aclose()
        await world.stop()


def kind(document: Any) -> str:
    assert set(document) == {"error", "node_errors"}
    return str(document["error"]["type"])


async def test_everybody_is_told_of_their_own_session_in_this_shape() -> None:
    async with asking() as ask:
        status, me = await ask("GET", ME)
        assert status == 200
        assert me == {
            "user": "alice",
            "state": "shared",
            "source": "duty",
            "gpu": None,
            "prompts_in_window": 0,
            "threshold": 5,
            "ahead": None,
            "eta_s": None,
            "idle_ends_in_s": None,
            "can": {"promote": True, "keep": False, "give_back": False},
        }


async def test_a_life_by_orders_of_its_user_alone() -> None:
    async with asking() as ask:
        status, me = await ask("POST", f"{ME}/promote", body=b"{}")
        assert (status, me["can"]) == (200, {"promote": False, "keep": False, "give_back": True})
        assert me["state"] in {"requested", "creating", "booting"}
        await ask.world.until(State.READY)
        status, me = await ask("POST", f"{ME}/keep", body=b'{"minutes": 30}')
        assert (status, me["source"], me["gpu"], me["idle_ends_in_s"]) == (200, "private", "RTX 4090", 1800)
        status, refusal = await ask("POST", f"{ME}/give-back", BOB)
        assert (status, kind(refusal)) == (409, "no_pod")
        status, theirs = await ask("GET", ME, BOB)
        assert (theirs["user"], theirs["state"], theirs["gpu"]) == ("bob", "shared", None)
        assert (await ask("POST", f"{ME}/give-back"))[0] == 200
        await ask.world.until(State.SHARED)
        assert len(ask.world.cloud.orders) == 1


async def test_nobody_is_named_by_query_or_body() -> None:
    async with asking() as ask:
        status, me = await ask("GET", f"{ME}?user=bob&user_id=bob")
        assert (status, me["user"]) == (200, "alice")
        for order in ("promote", "keep", "give-back"):
            status, refusal = await ask("POST", f"{ME}/{order}", body=b'{"user": "bob"}')
            assert (status, kind(refusal)) == (400, "bad_request")
            assert "'user'" in refusal["error"]["details"]
        assert ask.world.state(BOB) is State.SHARED


@pytest.mark.parametrize(
    "body", [b'{"minutes": 31}', b'{"minutes": "30"}', b"[]", b"{", b'{"minutes": null}']
)
async def test_a_keep_of_another_shape_is_refused(body: bytes) -> None:
    async with asking() as ask:
        await ask.world.ready()
        status, refusal = await ask("POST", f"{ME}/keep", body=body)
        assert (status, kind(refusal)) == (400, "bad_request")
        assert ask.world.keeping.times(ask.world.pod().name) == 0


async def test_who_has_said_no_name_has_no_session() -> None:
    async with asking() as ask:
        assert (await ask("GET", ME, None))[0] == 400
        status, refusal = await ask("POST", f"{ME}/promote", None)
        assert (status, kind(refusal)) == (400, "missing_user_id")


async def test_policy_says_who_may_ask_for_a_pod() -> None:
    async with asking(Policy()) as ask:
        assert (await ask("GET", ME))[1]["can"]["promote"] is False
        status, refusal = await ask("POST", f"{ME}/promote")
        assert (status, kind(refusal)) == (403, "not_allowed")
        assert ask.world.state() is State.SHARED
