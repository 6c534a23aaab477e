"""``/gateway/api/v1/me`` on a real socket: everybody's own session and nobody else's."""

import pytest

from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.core.life.session import State
from comfy_gateway.core.money.profiles import Profile
from comfy_gateway.core.ports import Candidate
from tests.fakes.clock import FakeClock
from tests.service.world import BOB, World, with_rules
from tests.site.api_stand import ME, api, kind


async def test_everybody_is_told_of_their_own_session_in_this_shape() -> None:
    async with api() as ask:
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
            "profiles": [],
        }


async def test_a_life_by_orders_of_its_user_alone() -> None:
    async with api() as ask:
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
    async with api() as ask:
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
    async with api() as ask:
        await ask.world.ready()
        status, refusal = await ask("POST", f"{ME}/keep", body=body)
        assert (status, kind(refusal)) == (400, "bad_request")
        assert ask.world.keeping.times(ask.world.pod().name) == 0


async def test_who_has_said_no_name_has_no_session() -> None:
    async with api() as ask:
        assert (await ask("GET", ME, None))[0] == 400
        status, refusal = await ask("POST", f"{ME}/promote", None)
        assert (status, kind(refusal)) == (400, "missing_user_id")


async def test_policy_says_who_may_ask_for_a_pod() -> None:
    async with api(Policy()) as ask:
        assert (await ask("GET", ME))[1]["can"]["promote"] is False
        status, refusal = await ask("POST", f"{ME}/promote")
        assert (status, kind(refusal)) == (403, "not_allowed")
        assert ask.world.state() is State.SHARED


async def test_a_profile_is_for_those_who_may_have_it() -> None:
    profiles = (
        Profile("big", (Candidate("H200", "SECURE"),), on_request=True),
        Profile("boss", (Candidate("B200", "SECURE"),), users=frozenset({"bob"})),
    )
    world = World(FakeClock(), rules=with_rules(profiles=profiles))
    async with api(world=world) as ask:
        assert (await ask("GET", ME))[1]["profiles"] == ["big"]
        for profile in ("boss", "none"):
            status, refusal = await ask("POST", f"{ME}/promote", body=b'{"profile": "%s"}' % profile.encode())
            assert (status, kind(refusal)) == (400, "no_profile")
        assert (await ask("POST", f"{ME}/promote", body=b'{"profile": "big"}'))[0] == 200
        await world.until(State.READY)
        assert (await ask("GET", ME))[1]["gpu"] == "H200"
    async with api(Policy()) as ask:
        assert (await ask("GET", ME))[1]["profiles"] == []
