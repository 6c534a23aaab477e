"""The way of a prompt through the hooks: one id, one run, one answer, whatever breaks off on the way."""

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from mitmproxy import http

from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.ports import PromptAnswer
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.hooks import edge
from comfy_gateway.service.prompts import submission
from tests.hooks.stand import ALICE, BOB, DUTY, PEER, POD, RULES, Stand, prompt, standing

NODES = {"1": {"class_type": "EmptyImage"}}
REFUSAL = {"error": {"type": "x", "message": "no"}, "node_errors": {}}


def body(prompt_id: str | None = None, **more: Any) -> bytes:
    chosen = {} if prompt_id is None else {"prompt_id": prompt_id}
    return json.dumps({"prompt": NODES, "client_id": "tab", **chosen, **more}).encode()


def sent(flow: http.HTTPFlow) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(flow.request.raw_content or b"")
    return document


def accepted(prompt_id: str, status: int = 200, **more: Any) -> http.Response:
    answer = {"prompt_id": prompt_id, "number": 4711, "node_errors": {}, **more}
    return http.Response.make(status, orjson.dumps(answer), {"Content-Type": "application/json"})


def refused() -> http.Response:
    return http.Response.make(400, orjson.dumps(REFUSAL), {"Content-Type": "application/json"})


def page(status: int) -> http.Response:
    """What a proxy says in place of a server."""
    return http.Response.make(status, b"<html>cloud</html>", {"Content-Type": "text/html", "Server": "cloud"})


def told(flow: http.HTTPFlow) -> tuple[int, Any]:
    assert flow.response is not None
    return flow.response.status_code, flow.response.json()


def begun(work: Coroutine[Any, Any, http.HTTPFlow]) -> "asyncio.Task[http.HTTPFlow]":
    return asyncio.get_running_loop().create_task(work)


def on_pod(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)


def found(stand: Stand, prompt_id: str = "p1") -> PromptRecord:
    record = stand.ledger.find(prompt_id)
    assert record is not None
    return record


# -- ids and numbers


async def test_a_prompt_without_an_id_gets_a_canonical_uuid(stand: Stand) -> None:
    for chosen in ({}, {"prompt_id": None}, {"prompt_id": ""}):
        flow = await stand.arrive(prompt(body(**chosen)))
        given = sent(flow)["prompt_id"]
        assert str(UUID(given)) == given
        assert UUID(given).version == 4
        await stand.answer(flow, accepted(given))
        assert flow.response is not None
        assert flow.response.headers["X-Comfy-Prompt-Id"] == given


@pytest.mark.parametrize("chosen", ["p1", "x" * 200, "Ä/ä b", "00000000-0000-4000-8000-000000000000"])
async def test_an_id_of_the_client_is_kept_as_it_is(stand: Stand, chosen: str) -> None:
    flow = await stand.arrive(prompt(body(chosen)))
    assert sent(flow)["prompt_id"] == chosen
    await stand.answer(flow, accepted(chosen))
    assert told(flow)[1]["prompt_id"] == chosen
    assert found(stand, chosen).body_sha256
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Prompt-Id"].isascii()


@pytest.mark.parametrize("chosen", ["x" * 201, "a\r\nSet-Cookie: b", "\x00", ["p"], {"a": 1}], ids=repr)
async def test_what_cannot_be_an_id_is_a_400(stand: Stand, chosen: Any) -> None:
    flow = await stand.exchange(prompt(body(prompt_id=chosen)))
    status, answer = told(flow)
    assert status == 400
    assert answer["error"]["type"] == "invalid_prompt"


NUMBERS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "ours rise": ({}, [1, 2, 3]),
    "in front they fall": ({"front": True}, [-1, -2, -3]),
    "the client's own stay": ({"number": 2.5}, [2.5, 2.5, 2.5]),
}


@pytest.mark.parametrize(("more", "numbers"), NUMBERS.values(), ids=NUMBERS.keys())
async def test_the_number_shown_is_the_gateways(
    stand: Stand, more: dict[str, Any], numbers: list[float]
) -> None:
    for expected in numbers:
        flow = await stand.arrive(prompt(body(**more)))
        assert {name: sent(flow).get(name) for name in more} == more, "the server keeps its own order"
        prompt_id = sent(flow)["prompt_id"]
        await stand.answer(flow, accepted(prompt_id, node_errors={"9": {"errors": []}}, extra="stays"))
        answer = {"prompt_id": prompt_id, "number": expected, "node_errors": {"9": {"errors": []}}}
        assert told(flow) == (200, {**answer, "extra": "stays"})
        assert found(stand, prompt_id).number == expected


async def test_an_answer_is_read_also_when_it_is_packed_or_comes_in_chunks(stand: Stand) -> None:
    packed = accepted("p1")
    packed.headers["Content-Encoding"] = "gzip"
    packed.raw_content = gzip.compress(packed.raw_content or b"")
    packed.headers["Content-Length"] = str(len(packed.raw_content))
    flow = await stand.exchange(prompt(body("p1")), packed)
    assert told(flow) == (200, {"prompt_id": "p1", "number": 1, "node_errors": {}})

    chunked = accepted("p2")
    del chunked.headers["Content-Length"]
    chunked.headers["Transfer-Encoding"] = "chunked"
    flow = await stand.exchange(prompt(body("p2")), chunked)
    assert told(flow)[1]["number"] == 2


async def test_servers_are_asked_for_plain_answers(stand: Stand) -> None:
    flow = await stand.arrive(prompt(body(), headers=[("Accept-Encoding", "br")]))
    assert flow.request.headers.get_all("Accept-Encoding") == ["identity"]


async def test_a_server_that_knows_no_ids_of_others_gives_its_own(stand: Stand) -> None:
    flow = await stand.exchange(prompt(body("ours")), accepted("theirs"))
    assert told(flow) == (200, {"prompt_id": "theirs", "number": 1, "node_errors": {}})
    assert stand.ledger.find("ours") is None
    assert found(stand, "theirs").outcome is Outcome.ACCEPTED


# -- the same id again


async def test_the_same_id_again_is_answered_as_before_and_runs_once(stand: Stand) -> None:
    first = await stand.exchange(prompt(body("p1")), accepted("p1", node_errors={"9": {"a": 1}}))
    for outcome in (None, Outcome.DONE):
        if outcome is not None:
            stand.ledger.end("p1", outcome)
        again = await stand.exchange(prompt(body("p1", another="body")))
        assert told(again) == told(first)
        assert again.response is not None
        assert again.response.headers["X-Comfy-Prompt-Id"] == "p1"
        assert again.response.headers["X-Comfy-Session-Source"] == "gateway"
        assert again.response.headers["X-Comfy-Session-User"] == "alice"
    count = stand.meters.registry.get_sample_value("comfy_gateway_prompts_accepted_total", {"source": "duty"})
    assert count == 1
    assert stand.ledger.next_number() == 2


async def test_the_same_id_of_somebody_else_is_a_409(stand: Stand) -> None:
    waiting = await stand.arrive(prompt(body("p1")))
    for _ in range(2):
        other = await stand.exchange(prompt(body("p1"), user="bob"))
        assert told(other)[0] == 409
        await stand.answer(waiting, accepted("p1")) if waiting.response is None else None
    assert found(stand).user_key == ALICE.key


async def test_requests_without_identity_share_their_ids(stand: Stand) -> None:
    stand.change(identity=IdentityRules(is_required=False))
    for _ in range(2):
        flow = await stand.exchange(prompt(b'{"prompt_id": "p1"}', user=None), accepted("p1"))
        assert told(flow)[0] == 200
    assert told(await stand.exchange(prompt(body("p1"))))[0] == 409


async def test_of_many_at_the_same_moment_one_is_sent_and_all_hear_its_answer(stand: Stand) -> None:
    tasks = [begun(stand.arrive(prompt(body("p1")))) for _ in range(5)]
    strangers = [begun(stand.arrive(prompt(body("p1"), user="bob"))) for _ in range(3)]
    await asyncio.wait([tasks[0], *strangers])
    flow = await tasks[0]
    assert stand.where(flow) == DUTY.id
    assert [stand.where(await task) for task in strangers] == ["409"] * 3
    assert not any(task.done() for task in tasks[1:])
    await stand.answer(flow, accepted("p1"))
    for task in tasks[1:]:
        again = await stand.answer(await task)
        assert told(again) == told(flow)


async def test_when_the_first_is_refused_the_second_goes_up_itself(stand: Stand) -> None:
    first = await stand.arrive(prompt(body("p1")))
    second = begun(stand.arrive(prompt(body("p1"))))
    await stand.clock.settle()
    assert not second.done()
    await stand.answer(first, refused())
    assert stand.where(await second) == DUTY.id
    await stand.answer(await second, accepted("p1"))
    assert told(await second)[0] == 200


async def test_who_waits_for_an_answer_that_does_not_come_is_told_to_come_again(stand: Stand) -> None:
    stand.submission._answer_wait_s = 0.05
    first = await stand.arrive(prompt(body("p1")))
    second = await stand.exchange(prompt(body("p1")))
    status, answer = told(second)
    assert (status, answer["error"]["type"]) == (503, "prompt_on_its_way")
    assert second.response is not None
    assert second.response.headers["Retry-After"] == "5"
    await stand.answer(first, accepted("p1"))
    assert told(await stand.exchange(prompt(body("p1"))))[0] == 200


async def test_who_goes_away_while_waiting_spoils_nothing_for_the_others(stand: Stand) -> None:
    first = await stand.arrive(prompt(body("p1")))
    gone, stays = (begun(stand.arrive(prompt(body("p1")))) for _ in range(2))
    await stand.clock.settle()
    gone.cancel()
    await asyncio.wait([gone])
    await stand.answer(first, accepted("p1"))
    assert told(await stand.answer(await stays)) == told(first)


# -- what breaks off


async def test_a_refused_id_is_free_for_everybody(stand: Stand) -> None:
    flow = await stand.exchange(prompt(body("p1")), refused())
    assert told(flow) == (400, REFUSAL)
    assert stand.placement.refusals == [DUTY]
    assert stand.where(await stand.arrive(prompt(body("p1"), user="bob"))) == DUTY.id


async def test_an_answer_that_never_came_is_looked_into(stand: Stand) -> None:
    await stand.break_off(await stand.arrive(prompt(body("p1"))))
    assert [record.prompt_id for record in stand.ledger.doubtful()] == ["p1"]
    assert stand.ledger.unfinished() == []
    stand.ledger.begin("p1")
    assert found(stand).outcome is Outcome.RUNNING
    count = stand.meters.registry.get_sample_value("comfy_gateway_prompts_accepted_total", {"source": "duty"})
    assert count == 1, "an accepted prompt counts however it becomes known"


async def test_what_no_server_was_reached_with_was_not_accepted(stand: Stand) -> None:
    flow = await stand.arrive(prompt(body("p1")))
    flow.server_conn.timestamp_tcp_setup = None
    await stand.break_off(flow)
    assert stand.ledger.doubtful() == []
    assert stand.where(await stand.arrive(prompt(body("p1")))) == DUTY.id


ON_DUTY: dict[str, tuple[Callable[[], http.Response], bool]] = {
    "a broken server": (lambda: page(500), True),
    "a proxy": (lambda: page(502), True),
    "a late server": (lambda: page(504), True),
    "a page": (lambda: page(200), True),
    "an answer of another shape": (lambda: http.Response.make(200, b'{"prompt_id": 5}'), True),
    "a redirect": (lambda: page(302), False),
    "a proxy that refuses": (lambda: page(413), False),
    "a server that refuses": (refused, False),
}


@pytest.mark.parametrize(("answer", "is_doubtful"), ON_DUTY.values(), ids=ON_DUTY.keys())
async def test_what_duty_says_is_passed_on_and_a_yes_or_no_is_told_from_neither(
    stand: Stand, answer: Callable[[], http.Response], is_doubtful: bool
) -> None:
    said = answer()
    flow = await stand.exchange(prompt(body("p1")), said)
    assert flow.response is not None
    assert (flow.response.status_code, flow.response.content) == (said.status_code, answer().content)
    assert bool(stand.ledger.doubtful()) is is_doubtful
    assert stand.ledger.find("p1") is None
    assert stand.comfy.posted == []


async def test_an_answer_too_long_to_be_read_is_looked_into(stand: Stand) -> None:
    long = http.Response.make(200, b" " * (10 * 1024 * 1024 + 1))
    flow = await stand.exchange(prompt(body("p1")), long)
    assert flow.response is not None
    assert flow.response.stream
    assert len(stand.ledger.doubtful()) == 1


async def test_a_prompt_that_failed_in_the_hook_leaves_its_id_free(stand: Stand) -> None:
    def fail() -> None:
        raise LookupError("a bug")

    stand.relay.while_waiting = fail
    assert told(await stand.exchange(prompt(body("p1"))))[0] == 503
    stand.relay.while_waiting = lambda: None
    assert stand.where(await stand.arrive(prompt(body("p1"), user="bob"))) == DUTY.id


# -- inputs


async def test_inputs_are_brought_to_the_server_that_the_prompt_goes_to(stand: Stand) -> None:
    stand.inputs.rewritten = {"prompt": {"1": "renamed"}}
    flow = await stand.arrive(prompt(body("p1")))
    assert sent(flow)["prompt"] == {"1": "renamed"}
    assert stand.inputs.carried == [(DUTY.id, PEER)]
    await stand.answer(flow, accepted("p1"))
    kept = await stand.ledger.body("p1")
    assert kept is not None
    assert json.loads(kept)["prompt"] == NODES, "a replay elsewhere begins with what the client said"


async def test_a_route_that_moves_is_followed_with_the_inputs(stand: Stand) -> None:
    stand.inputs.while_carrying = lambda: on_pod(stand)
    flow = await stand.arrive(prompt(body("p1")))
    assert stand.where(flow) == POD.id
    assert [backend for backend, _ in stand.inputs.carried] == [DUTY.id, POD.id]
    await stand.answer(flow, accepted("p1"))
    assert found(stand).backend_id == POD.id


async def test_a_route_that_does_not_come_to_rest_is_not_followed_for_ever(stand: Stand) -> None:
    def move() -> None:
        if stand.routes.private(ALICE) is None:
            on_pod(stand)
        else:
            stand.routes.clear_private(ALICE)

    stand.inputs.while_carrying = move
    flow = await stand.arrive(prompt(body("p1")))
    assert stand.where(flow) in {DUTY.id, POD.id}
    assert len(stand.inputs.carried) == submission.MOST_MOVES


async def test_a_prompt_whose_inputs_cannot_be_brought_is_refused_and_its_id_free(stand: Stand) -> None:
    stand.inputs.refusal = Refusal(413, "too_large", "Too large.")
    assert told(await stand.exchange(prompt(body("p1"))))[0] == 413
    stand.inputs.refusal = None
    assert stand.where(await stand.arrive(prompt(body("p1")))) == DUTY.id


async def test_a_pod_that_cannot_be_brought_its_inputs_now_leaves_the_prompt_to_duty(stand: Stand) -> None:
    on_pod(stand)
    stand.inputs.refused_by[POD.id] = Refusal(503, "input_unavailable", "Its server does not answer.")
    flow = await stand.arrive(prompt(body("p1")))
    assert stand.where(flow) == DUTY.id
    assert [backend for backend, _ in stand.inputs.carried] == [POD.id, DUTY.id]
    assert stand.nudged == [ALICE]
    await stand.answer(flow, accepted("p1"))
    assert found(stand).backend_id == DUTY.id


async def test_where_duty_cannot_have_them_either_the_client_is_told_to_come_again(stand: Stand) -> None:
    on_pod(stand)
    stand.inputs.refusal = Refusal(503, "input_unavailable", "Its server does not answer.")
    assert told(await stand.exchange(prompt(body("p1"))))[0] == 503
    assert [backend for backend, _ in stand.inputs.carried] == [POD.id, DUTY.id]


async def test_inputs_that_were_lost_are_brought_once_more(stand: Stand) -> None:
    stand.inputs.is_worth_a_second_try = True
    flow = await stand.exchange(prompt(body("p1")), refused())
    assert told(flow) == (200, {"prompt_id": "p1", "number": 1, "node_errors": {}})
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Prompt-Id"] == "p1"
    assert flow.response.headers["X-Comfy-Session-Source"] == "duty"
    assert [backend for backend, _ in stand.comfy.posted] == [DUTY.id]
    assert len(stand.inputs.carried) == 2
    assert found(stand).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("is_tried_twice", [False, True])
async def test_a_refusal_and_warnings_name_files_as_the_user_does(stand: Stand, is_tried_twice: bool) -> None:
    errors = {"1": {"errors": [{"details": "Invalid image file: hidden/a.png"}]}}
    shown = {"1": {"errors": [{"details": "Invalid image file: a.png"}]}}
    stand.inputs.is_worth_a_second_try = is_tried_twice
    refusal = {**REFUSAL, "node_errors": errors}
    stand.comfy.refusal = PromptAnswer(400, refusal)
    answer = http.Response.make(400, orjson.dumps(refusal), {"Content-Type": "application/json"})
    assert told(await stand.exchange(prompt(body("p1")), answer)) == (400, {**REFUSAL, "node_errors": shown})
    accepts = accepted("p2", node_errors=errors)
    assert told(await stand.exchange(prompt(body("p2")), accepts))[1]["node_errors"] == shown
    assert told(await stand.exchange(prompt(body("p2"))))[1]["node_errors"] == shown


async def test_what_is_refused_twice_is_refused_in_the_servers_words(stand: Stand) -> None:
    stand.inputs.is_worth_a_second_try = True
    second = {"error": {"type": "y", "message": "still no"}, "node_errors": {"1": {}}}
    stand.comfy.refusal = PromptAnswer(400, second)
    assert told(await stand.exchange(prompt(body("p1")), refused())) == (400, second)
    assert stand.where(await stand.arrive(prompt(body("p1")))) == DUTY.id


# -- a pod that is gone


@pytest.mark.parametrize("status", [200, 403, 404, 502, 503, 521, 522, 523, 530])
async def test_when_no_comfyui_answers_for_a_pod_duty_takes_the_prompt(stand: Stand, status: int) -> None:
    on_pod(stand)
    flow = await stand.arrive(prompt(body("p1")))
    stand.comfy.down = {POD.id}
    await stand.answer(flow, page(status))
    assert told(flow) == (200, {"prompt_id": "p1", "number": 1, "node_errors": {}})
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Session-Source"] == "duty"
    assert flow.response.headers["Content-Type"].startswith("application/json")
    assert "Server" not in flow.response.headers
    [(backend_id, content)] = stand.comfy.posted
    assert backend_id == DUTY.id
    assert json.loads(content)["prompt_id"] == "p1"
    assert stand.relay.backends == [POD.id, DUTY.id]
    assert (found(stand).backend_id, found(stand).replays) == (DUTY.id, 0)
    assert stand.nudged == [ALICE]
    assert stand.activity.in_flight(POD.id) == 0
    count = stand.meters.registry.get_sample_value("comfy_gateway_prompts_accepted_total", {"source": "duty"})
    assert count == 1


@pytest.mark.parametrize("status", [408, 500, 504, 524])
async def test_what_a_pod_may_have_taken_is_looked_into_and_not_sent_again(stand: Stand, status: int) -> None:
    on_pod(stand)
    flow = await stand.exchange(prompt(body("p1")), page(status))
    assert flow.response is not None
    assert flow.response.status_code == status
    assert stand.comfy.posted == []
    assert [record.backend_id for record in stand.ledger.doubtful()] == [POD.id]


async def test_a_refusal_of_the_pods_comfyui_stays_one(stand: Stand) -> None:
    on_pod(stand)
    assert told(await stand.exchange(prompt(body("p1")), refused()))[0] == 400
    assert stand.comfy.posted == []
    assert stand.nudged == []


@pytest.mark.parametrize("where", ["queue", "history"])
async def test_a_pod_that_has_the_prompt_all_the_same_keeps_it(stand: Stand, where: str) -> None:
    on_pod(stand)
    if where == "queue":
        stand.comfy.queued[POD.id] = {"p1"}
    else:
        stand.comfy.endings["p1"] = Outcome.DONE
    flow = await stand.exchange(prompt(body("p1")), page(502))
    assert told(flow) == (200, {"prompt_id": "p1", "number": 1, "node_errors": {}})
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Session-Source"] == "private"
    assert stand.comfy.posted == []
    assert found(stand).backend_id == POD.id


async def test_when_duty_is_away_too_the_client_is_told_and_the_prompt_looked_into(stand: Stand) -> None:
    on_pod(stand)
    stand.comfy.down = {POD.id, DUTY.id}
    flow = await stand.exchange(prompt(body("p1")), page(404))
    status, answer = told(flow)
    assert (status, answer["error"]["type"]) == (502, "upstream_unreachable")
    assert [record.backend_id for record in stand.ledger.doubtful()] == [DUTY.id]


async def test_what_duty_refuses_for_a_pod_is_refused(stand: Stand) -> None:
    on_pod(stand)
    stand.comfy.down = {POD.id}
    stand.comfy.refusal = PromptAnswer(400, {"error": {"type": "y"}, "node_errors": {}})
    flow = await stand.exchange(prompt(body("p1")), page(404))
    assert told(flow) == (400, {"error": {"type": "y"}, "node_errors": {}})
    assert stand.ledger.doubtful() == []


async def test_inputs_that_duty_cannot_have_refuse_the_prompt(stand: Stand) -> None:
    on_pod(stand)
    flow = await stand.arrive(prompt(body("p1")))
    stand.inputs.refusal = Refusal(413, "too_large", "Too large.")
    await stand.answer(flow, page(404))
    assert told(flow)[0] == 413
    assert stand.ledger.doubtful() == []
    assert stand.ledger.reserve(PromptRecord("p1", BOB.key, "", DUTY.id)) is not None


# -- secrets

KEY = "sk-123456"


def with_key(prompt_id: str = "p1") -> bytes:
    return body(
        prompt_id, extra_data={"api_key_comfy_org": KEY, "extra_pnginfo": {"workflow": {"nodes": []}}}
    )


ENDS: dict[str, Callable[[Stand, http.HTTPFlow], Any]] = {
    "accepted": lambda stand, flow: stand.answer(flow, accepted("p1")),
    "refused": lambda stand, flow: stand.answer(flow, refused()),
    "broken off": lambda stand, flow: stand.break_off(flow),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_key_goes_to_the_server_and_into_nothing_that_is_kept(
    stand: Stand, end: Callable[[Stand, http.HTTPFlow], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    flow = await stand.arrive(prompt(with_key()))
    assert sent(flow)["extra_data"]["api_key_comfy_org"] == KEY
    assert KEY not in repr(flow.metadata)
    await end(stand, flow)
    kept = sent(flow)
    assert KEY not in repr(flow.get_state())
    assert kept["prompt"] == NODES
    assert kept["extra_data"]["extra_pnginfo"] == {"workflow": {"nodes": []}}
    assert flow.request.headers["Content-Length"] == str(len(flow.request.raw_content or b""))
    assert KEY not in caplog.text


async def test_the_key_is_there_for_a_replay_but_not_in_the_database(stand: Stand) -> None:
    await stand.exchange(prompt(with_key()), accepted("p1"))
    assert KEY in str(await stand.ledger.body("p1"))
    pending = repr(stand.ledger._journal._pending["p1"].body)
    assert "extra_pnginfo" in pending
    assert KEY not in pending


async def test_a_flow_that_has_not_ended_is_written_without_its_key(stand: Stand) -> None:
    flow = await stand.arrive(prompt(with_key()))
    for hook in stand.hooks:
        if hasattr(hook, "done"):
            hook.done()
    assert KEY not in repr(flow.get_state())
    await stand.answer(flow, accepted("p1"))
    assert flow.response is not None
    assert flow.response.status_code == 200


NOT_SENT: dict[str, tuple[bytes, str, int]] = {
    "the same again": (with_key("known"), "alice", 200),
    "somebody else's id": (with_key("known"), "bob", 409),
    "an id that is none": (with_key("x" * 300), "alice", 400),
    "no JSON": (with_key("p1") + b"}", "alice", 400),
    "a fault of ours": (with_key("p1"), "alice", 503),
}


@pytest.mark.parametrize(("given", "user", "status"), NOT_SENT.values(), ids=NOT_SENT.keys())
async def test_the_key_of_a_prompt_that_is_not_sent_is_not_kept_either(
    stand: Stand, given: bytes, user: str, status: int
) -> None:
    await stand.exchange(prompt(body("known")), accepted("known"))
    if status == 503:
        stand.placement.routes = None  # type: ignore[assignment]
    flow = await stand.exchange(prompt(given, user=user))
    assert told(flow)[0] == status
    assert KEY not in repr(flow.get_state())


async def test_a_body_that_cannot_be_read_and_holds_no_key_can_be_looked_at(stand: Stand) -> None:
    flow = await stand.exchange(prompt(b'{"prompt": '))
    assert flow.request.raw_content == b'{"prompt": '


async def test_what_holds_no_key_is_kept_as_it_was_sent(stand: Stand) -> None:
    stand.inputs.rewritten = {"prompt": {"1": "renamed"}}
    flow = await stand.arrive(prompt(body("p1")))
    before = flow.request.raw_content
    await stand.answer(flow, accepted("p1"))
    assert flow.request.raw_content is before


# -- lists


async def test_the_hook_forgets_a_flow_with_its_end(stand: Stand) -> None:
    flow = await stand.exchange(prompt(body("p1")), accepted("p1"))
    await stand.break_off(flow)  # a person kills it afterwards
    assert found(stand).outcome is Outcome.ACCEPTED
    assert edge.TRANSFER not in flow.metadata


@pytest.mark.parametrize(
    ("lacking", "is_wanted", "is_begun"),
    [("node 'Newest'", True, True), ("", True, False), ("node 'Newest'", False, False)],
)
async def test_a_prompt_that_duty_refuses_and_pods_could_run_may_start_one(
    lacking: str, is_wanted: bool, is_begun: bool
) -> None:
    async with standing(rules=replace(RULES, bursts_for_missing=is_wanted)) as stand:
        stand.placement.lacking = lacking
        assert told(await stand.exchange(prompt(body("p1")), refused())) == (400, REFUSAL)
        assert stand.begun == ([ALICE] if is_begun else [])


async def test_a_refusal_of_a_pod_starts_none(stand: Stand) -> None:
    on_pod(stand)
    stand.placement.lacking = "node 'Newest'"
    await stand.exchange(prompt(body("p1")), refused())
    assert stand.begun == []


async def test_a_prompt_that_is_accepted_may_ask_for_a_profile_of_pods(stand: Stand) -> None:
    asking = body("p1", extra_data={"runpod_profile": "small"})
    assert told(await stand.exchange(prompt(asking), refused()))[0] == 400
    assert stand.wishes.of(ALICE) is None
    flow = await stand.exchange(prompt(asking), accepted("p1"))
    assert told(flow)[0] == 200
    assert stand.wishes.of(ALICE) == "small"
    await stand.exchange(prompt(body("p2")), accepted("p2"))
    assert stand.wishes.of(ALICE) is None
