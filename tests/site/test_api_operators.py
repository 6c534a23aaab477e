"""What operators are told on a real socket, and what they do."""

from typing import Any
from urllib.parse import quote

import pytest

from comfy_gateway.core.life import own_pod
from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.budget import Budget
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.site.api.models import session_id, user_of
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB, World, with_rules
from tests.site.api_stand import API, Api, api, kind

ID = session_id(ALICE)


async def only(ask: Api, path: str = "/sessions") -> dict[str, Any]:
    status, told = await ask.boss("GET", path)
    assert status == 200
    (session,) = told["sessions"]
    return dict(session)


async def test_users_get_none_of_it_even_if_the_hooks_let_them_pass() -> None:
    async with api() as ask:
        await ask.world.ready()
        operations = [one for part in ask.parts for one in part.operations() if not one.is_own]
        assert len(operations) >= 12
        for one in operations:
            path = API + one.path.replace("{id}", ID)
            status, refusal = await ask(one.method, path)
            assert (one.name, status, kind(refusal)) == (one.name, 403, "operators_only")
        assert (await ask("GET", "/gateway/events"))[0] == 403
        assert ask.world.state() is State.READY


async def test_sessions_tell_who_is_where_and_why() -> None:
    async with api() as ask:
        assert await ask.boss("GET", "/sessions") == (200, {"sessions": []})
        pod = await ask.world.ready()
        ask.world.servers.mood(pod.id).utilization_percent = 40.0
        ask.world.prompts(ALICE, 1, is_done=False)
        await ask.world.clock.advance(61)
        told = await only(ask)
        assert (told["id"], told["user"], told["kind"], told["state"]) == (ID, "alice", "named", "ready")
        assert (told["source"], told["pod"], told["gpu"]) == ("private", pod.name, "RTX 4090")
        assert (told["prompts"], told["utilization_percent"], told["idle_ends_at"]) == (1, 40.0, None)
        assert told["verdict"] == "1 prompts in flight"
        assert told["cause"] == "ComfyUI and the agent answer"
        assert await ask.boss("GET", "/sessions?user=bob") == (200, {"sessions": []})
        assert await only(ask, "/sessions?user=named:alice&state=ready&user_id=boss") == told


async def test_who_waits_on_duty_is_listed_as_well() -> None:
    async with api() as ask:
        ask.world.prompts(BOB, 1, is_done=False)
        told = await only(ask)
        assert (told["user"], told["state"], told["source"], told["since"]) == ("bob", "shared", "duty", None)


async def test_one_session_has_cost_readings_and_log() -> None:
    async with api() as ask:
        pod = await ask.world.ready()
        await ask.world.clock.advance(600 - 60)
        status, told = await ask.boss("GET", f"/sessions/{ID}")
        assert status == 200
        assert told["cost_usd"] == pytest.approx((pod.cost_per_hour_usd or 0) * 0.2, rel=0.5)
        assert 8 <= len(told["readings"]) <= 12
        assert told["readings"] == sorted(told["readings"], key=lambda one: str(one["at"]))
        assert told["idle_ends_at"] is not None
        assert await ask.boss("GET", f"/sessions/{ID}/log?lines=2") == (
            200,
            {"lines": ["line 999", "line 1000"]},
        )
        ask.world.servers.mood(pod.id).has_agent = False
        # An agent that does not answer any more has told its log before.
        status, said = await ask.boss("GET", f"/sessions/{ID}/log?lines=2")
        assert (status, said) == (200, {"lines": ["line 999", "line 1000"]})
        ask.world.shelf.logs.clear()
        status, refusal = await ask.boss("GET", f"/sessions/{ID}/log")
        assert (status, kind(refusal)) == (502, "no_log")
        status, refusal = await ask.boss("GET", f"/sessions/{session_id(BOB)}/log")
        assert (status, kind(refusal)) == (409, "no_log")
        assert (await ask.boss("GET", f"/sessions/{session_id(BOB)}"))[1]["state"] == "shared"


async def test_charts_have_the_last_hour_of_every_pod_by_minutes() -> None:
    async with api() as ask:
        assert (await ask.boss("GET", "/charts"))[1]["charts"] == []
        pod = await ask.world.ready()
        ask.world.servers.mood(pod.id).utilization_percent = 40.0
        ask.world.prompts(BOB, 1, is_done=False)
        await ask.world.clock.advance(300)
        _, told = await ask.boss("GET", "/charts")
        (chart,) = told["charts"]
        assert (chart["id"], told["step_s"]) == (ID, 60)
        assert len(chart["utilization_percent"]) == len(chart["queue"]) == 60
        assert chart["utilization_percent"][-3:-1] == [40, 40]
        assert chart["utilization_percent"][0] is None


@pytest.mark.parametrize("id_", ["alice", "YWxpY2U", "%FF", "named:alice", ID + "="])
async def test_what_is_no_session_is_not_found(id_: str) -> None:
    async with api() as ask:
        status, refusal = await ask.boss("GET", f"/sessions/{quote(id_, safe='%')}")
        assert (status, kind(refusal)) == (404, "no_session")
        assert (await ask.boss("POST", f"/sessions/{quote(id_, safe='%')}/promote"))[0] == 404


def test_ids_of_sessions_hold_any_name() -> None:
    for name in ("a/../b", "..", "ü", "x" * 128, "a b?c#d"):
        user = UserId(IdKind.NAMED, name)
        assert set(session_id(user)) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
        )
        assert user_of(session_id(user)) == (user if name.isascii() else None)


async def test_operators_promote_whatever_the_policy_and_drain_again() -> None:
    async with api(Policy(may_promote=False)) as ask:
        status, told = await ask.boss("POST", f"/sessions/{ID}/promote")
        assert (status, told["cause"]) == (200, told["cause"])
        assert (await ask.boss("POST", f"/sessions/{ID}/promote"))[0] == 409
        await ask.world.until(State.READY)
        running = ask.world.prompts(ALICE, 1, is_done=False)
        assert (await ask.boss("POST", f"/sessions/{ID}/drain"))[0] == 200
        await ask.world.until(State.DRAINING, step_s=0.1)
        assert kind((await ask.boss("POST", f"/sessions/{ID}/drain"))[1]) == "no_pod"
        assert ask.world.ledger.find(running[0]) is not None
        await ask.world.until(State.SHARED)
        _, events = await ask.boss("GET", "/events")
        causes = {one["cause"] for one in events["events"]}
        assert {"promoted by operator boss", "drained by operator boss"} <= causes


async def test_an_operator_is_told_which_bound_holds_a_pod_back() -> None:
    world = World(FakeClock(), rules=with_rules(caps=Caps(max_active_sessions=0, budget_hourly_usd=20)))
    async with api(world=world) as ask:
        status, refusal = await ask.boss("POST", f"/sessions/{ID}/promote")
        assert (status, kind(refusal)) == (503, "none_free")
        assert "RUNPOD_MAX_ACTIVE_SESSIONS" in refusal["error"]["details"]
        status, refusal = await ask("POST", f"{API}/me/promote")
        assert (status, kind(refusal)) == (503, "none_free")
        assert "RUNPOD" not in refusal["error"]["details"]


async def test_terminate_waits_for_nothing_that_runs_there() -> None:
    async with api() as ask:
        await ask.world.ready()
        ask.world.prompts(ALICE, 1, is_done=False)
        assert (await ask.boss("POST", f"/sessions/{ID}/terminate"))[0] == 200
        assert await ask.world.until(State.TERMINATING, step_s=0.1) < 5
        assert kind((await ask.boss("POST", f"/sessions/{ID}/terminate"))[1]) == "no_pod"
        await ask.world.until(State.SHARED)
        assert not ask.world.cloud.living()
        # It was for that pod alone: the next one is drained as any other.
        await ask.world.ready()
        ask.world.prompts(ALICE, 1, is_done=False)
        assert (await ask.boss("POST", f"/sessions/{ID}/drain"))[0] == 200
        await ask.world.until(State.DRAINING, step_s=0.1)
        await ask.world.clock.advance(30)
        assert ask.world.state() is State.DRAINING
        assert (await ask.boss("POST", f"/sessions/{ID}/terminate"))[0] == 200
        await ask.world.until(State.SHARED, within_s=20)


async def test_a_pod_that_boots_is_terminated_as_well() -> None:
    async with api() as ask:
        assert (await ask.boss("POST", f"/sessions/{ID}/promote"))[0] == 200
        await ask.world.until(State.BOOTING, step_s=0.1)
        assert (await ask.boss("POST", f"/sessions/{ID}/terminate"))[0] == 200
        await ask.world.until(State.SHARED)
        assert Event.HEALTHY not in ask.world.events()


async def test_extending_costs_none_of_the_users_times_and_moves_no_longest_life() -> None:
    world = World(FakeClock(), rules=with_rules(budget=Budget(max_lifetime_s=7200)))
    async with api(Policy(keep_times=1, max_lifetime_s=7200), world=world) as ask:
        assert kind((await ask.boss("POST", f"/sessions/{ID}/extend"))[1]) == "no_pod"
        await world.ready()
        assert (await ask.boss("POST", f"/sessions/{ID}/extend", b'{"minutes": 60}'))[0] == 200
        name = world.pod().name
        assert (world.keeping.left_s(name), world.keeping.times(name)) == (3600, 0)
        assert (await ask.boss("POST", f"/sessions/{ID}/extend", b'{"minutes": 5}'))[0] == 200
        assert world.keeping.left_s(name) == 3600
        assert (await ask.boss("POST", f"/sessions/{ID}/extend", b'{"minutes": 1440}'))[0] == 200
        assert world.keeping.left_s(name) <= 7200
        assert (await ask.boss("POST", f"/sessions/{ID}/extend", b'{"minutes": 0}'))[0] == 400
        world.prompts(ALICE, 1, is_done=False)
        await world.clock.advance(7200)
        assert (await ask.boss("POST", f"/sessions/{ID}/extend"))[1]["error"][
            "type"
        ] == own_pod.LIFE_OVER.type


async def test_events_come_by_pages() -> None:
    async with api() as ask:
        await ask.world.ready()
        _, everything = await ask.boss("GET", "/events")
        assert everything["next"] is None
        seen: list[int] = []
        path = "/events?limit=2"
        while True:
            _, page = await ask.boss("GET", path)
            seen += [one["number"] for one in page["events"]]
            if page["next"] is None:
                break
            path = f"/events?limit=2&before={page['next']}"
        assert seen == [one["number"] for one in everything["events"]]
        _, found = await ask.boss(
            "GET", "/events?event=created&state=booting&user=alice&since=2020-01-01T00:00:00Z"
        )
        assert [one["event"] for one in found["events"]] == ["created"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/events?limit=0", "limit"),
        ("/events?limit=501", "limit"),
        ("/events?event=nonsense", "event"),
        ("/events?since=2026-01-01T00:00:00", "since"),
        ("/events?colour=red", "colour"),
        ("/events?user=a&user=b", "user"),
        ("/sessions?state=gone", "state"),
        ("/spend?since=yesterday", "since"),
        ("/spend?since=0001-01-01", "since"),
        ("/spend?since=2020-01-01&until=2026-01-01", "since"),
        ("/spend?since=2026-01-02&until=2026-01-01", "since"),
        ("/prompts?before=x", "before"),
        (f"/sessions/{ID}/log?lines=9999", "lines"),
    ],
)
async def test_a_wrong_question_names_its_field(path: str, field: str) -> None:
    async with api() as ask:
        status, refusal = await ask.boss("GET", path)
        assert (status, kind(refusal)) == (400, "bad_request")
        assert f"'{field}'" in refusal["error"]["details"]


async def test_spend_is_told_by_user_and_day() -> None:
    async with api() as ask:
        await ask.world.ready()
        await ask.world.ready(BOB)
        await ask.world.clock.advance(3600 - 600)
        status, told = await ask.boss("GET", "/spend")
        assert status == 200
        assert {row["user"] for row in told["spend"]} == {"alice", "bob"}
        assert told["total_usd"] == pytest.approx(ask.world.cloud.spent_usd(), rel=0.2)
        assert told["total_usd"] == pytest.approx(sum(row["usd"] for row in told["spend"]))
        assert (await ask.boss("GET", "/spend?since=2020-01-01&until=2020-01-02"))[1]["spend"] == []
        ask.world.memory.is_down = True
        status, refusal = await ask.boss("GET", "/spend")
        assert (status, kind(refusal)) == (503, "store_unavailable")


async def test_the_pool_is_told_without_addresses() -> None:
    async with api(world=World(FakeClock(), duties=2)) as ask:
        _, told = await ask.boss("GET", "/duty")
        assert [one["is_healthy"] for one in told["servers"]] == [None, None]
        await ask.world.pool.probe_all()
        _, told = await ask.boss("GET", "/duty")
        assert [(one["id"], one["is_home"]) for one in told["servers"]] == [
            ("duty-0", True),
            ("duty-1", False),
        ]
        assert all(one["is_healthy"] for one in told["servers"])
        assert "test" not in str(told)


async def test_recent_prompts_tell_where_they_ran() -> None:
    async with api() as ask:
        ask.world.prompts(BOB, 2)
        ask.world.ledger.accept(PromptRecord("nobodys", None, "sid", "duty-0", position=7))
        await ask.world.ready()
        ask.world.prompts(ALICE, 1, is_done=False)
        _, told = await ask.boss("GET", "/prompts?limit=1")
        assert [(one["user"], one["source"], one["outcome"]) for one in told["prompts"]] == [
            ("alice", "private", "accepted")
        ]
        assert told["prompts"][0]["server"] == ask.world.pod().name
        assert told["next"] == told["prompts"][0]["position"]
        _, told = await ask.boss("GET", "/prompts?user=bob&outcome=done")
        assert [(one["user"], one["source"]) for one in told["prompts"]] == [("bob", "duty")] * 2
        assert (await ask.boss("GET", "/prompts?before=0"))[1]["prompts"] == []
        assert None in {one["user"] for one in (await ask.boss("GET", "/prompts"))[1]["prompts"]}


async def test_the_log_of_a_pod_that_is_gone_is_still_shown() -> None:
    async with api() as ask:
        await ask.world.shelf.keep("comfy-gw-gone-a1", ["one", "two", "three"])
        assert await ask.boss("GET", "/pods/comfy-gw-gone-a1/log?lines=2") == (
            200,
            {"lines": ["two", "three"]},
        )
        status, refusal = await ask.boss("GET", "/pods/comfy-gw-other-a1/log")
        assert (status, kind(refusal)) == (404, "no_log")
