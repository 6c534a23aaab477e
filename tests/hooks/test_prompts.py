"""POST /prompt: read, given our client_id, sent on, and counted once it is accepted."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from mitmproxy import http

from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.prompts import Outcome
from comfy_gateway.core.requests.refusals import MAX_PROMPT_BYTES
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.secret_headers import hidden
from comfy_gateway.service.prompts.submission import SOCKET_WAIT_S
from tests.hooks.stand import ALICE, DUTY, KEYS, NOWHERE, POD, RULES, Stand, ask, prompt, socket, standing

BODY = b'{"prompt": {"1": {"class_type": "EmptyImage"}}, "client_id": "tab"}'


def accepted(prompt_id: str = "p1", status: int = 200) -> http.Response:
    """ComfyUI's answer."""
    return http.Response.make(status, orjson.dumps({"prompt_id": prompt_id, "number": 1, "node_errors": {}}))


def sent(flow: http.HTTPFlow) -> dict[str, Any]:
    """The body as the server reads it."""
    assert flow.request.headers.get_all("Content-Length") == [str(len(flow.request.raw_content or b""))]
    document: dict[str, Any] = json.loads(flow.request.raw_content or b"")
    return document


# -- refused unread

BIG = str(MAX_PROMPT_BYTES + 1)
UNREAD: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "no length": ([], 411, "length_required"),
    "two lengths": ([("Content-Length", "1"), ("Content-Length", "2")], 411, "length_required"),
    "a length that is none": ([("Content-Length", "-1")], 411, "length_required"),
    "chunked": ([("Transfer-Encoding", "chunked")], 411, "length_required"),
    "chunked with a length": (
        [("Transfer-Encoding", "chunked"), ("Content-Length", "5")], 411, "length_required",
    ),
    "too large": ([("Content-Length", BIG)], 413, "prompt_too_large"),
    "compressed": ([("Content-Length", "5"), ("Content-Encoding", "gzip")], 415, "encoded_prompt"),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "status", "kind"), UNREAD.values(), ids=UNREAD.keys())
async def test_a_prompt_that_must_not_be_read_is_refused_by_the_site(
    stand: Stand, headers: list[tuple[str, str]], status: int, kind: str
) -> None:
    flow = await stand.arrive(ask("/prompt", method="POST", headers=headers))
    if headers:
        assert flow.response is None
        assert flow.request.stream is True
        assert stand.where(flow) == "site /-/refusal"
        refusal = orjson.loads(base64.b64decode(flow.request.headers["X-Gateway-Site-Refusal"]))
        assert refusal[:2] == [status, kind]
    else:
        assert flow.response is not None
        assert flow.response.status_code == status
        assert flow.response.json()["error"]["type"] == kind
    assert stand.relay.asked == []
    assert edge.BACKEND not in flow.metadata


@pytest.mark.parametrize("length", ["0", str(MAX_PROMPT_BYTES)])
async def test_the_longest_prompt_is_still_read(stand: Stand, length: str) -> None:
    flow = ask(
        "/prompt", method="POST", headers=[("Content-Length", length), ("Content-Encoding", "Identity")]
    )
    await stand.arrive(flow)
    assert stand.where(flow) == "400", "read, and found to be no JSON"


# -- refused when read

UNUSABLE = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "no object": b"[1]",
    "nothing": b"",
    "nested too deeply": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested too deeply to be written again": b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
}


@pytest.mark.parametrize("body", UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_what_is_no_prompt_is_a_400_as_comfyui_has_it(stand: Stand, body: bytes) -> None:
    flow = await stand.exchange(prompt(body))
    assert flow.response is not None
    assert flow.response.status_code == 400
    assert flow.response.json()["error"]["type"] == "invalid_prompt"
    assert (flow.request.host, flow.request.port) == NOWHERE
    assert stand.activity.in_flight(DUTY.id) == 0


async def test_a_prompt_without_any_id_is_refused_where_one_is_required(stand: Stand) -> None:
    flow = await stand.exchange(prompt(b'{"prompt": {}}', user=None))
    assert flow.response is not None
    assert flow.response.status_code == 400
    assert flow.response.json()["error"]["type"] == "missing_user_id"
    assert (flow.request.host, flow.request.port) == NOWHERE


async def test_a_name_that_cannot_be_used_is_refused_with_the_body_at_the_latest(stand: Stand) -> None:
    """The head is judged first; this is what is left if it ever were not."""
    flow = prompt(BODY, headers=[("X-Comfy-User", "bob")])
    flow.metadata[edge.CLASS] = "prompt"
    await stand.body(flow, BODY)
    assert flow.response is not None
    assert flow.response.status_code == 400
    assert flow.response.json()["error"]["type"] == "bad_user_id"


# -- sent on

NAMED: dict[str, tuple[bytes, str]] = {
    "at the top": (b'{"prompt": {}, "client_id": "tab"}', "tab"),
    "in extra_data": (b'{"prompt": {}, "extra_data": {"client_id": "tab"}}', "tab"),
    "in both": (b'{"prompt": {}, "client_id": "tab", "extra_data": {"client_id": "other"}}', "tab"),
    "nowhere": (b'{"prompt": {}, "extra_data": {"extra_pnginfo": {"a": 1}}}', ""),
}


@pytest.mark.parametrize(("body", "sid"), NAMED.values(), ids=NAMED.keys())
async def test_a_prompt_goes_up_with_our_client_id_in_both_places(
    stand: Stand, body: bytes, sid: str
) -> None:
    flow = await stand.arrive(prompt(body))
    document = sent(flow)
    ours = upstream_sid(KEYS, ALICE, sid)
    assert ours not in {"", "tab"}
    assert document["client_id"] == ours
    assert document["extra_data"]["client_id"] == ours
    assert document["prompt"] == {}
    assert stand.where(flow) == DUTY.id
    rest = orjson.loads(body)
    assert set(document) == {*rest, "client_id", "extra_data", "prompt_id"}
    assert document["extra_data"].get("extra_pnginfo") == rest.get("extra_data", {}).get("extra_pnginfo")


async def test_what_orjson_would_round_arrives_unchanged(stand: Stand) -> None:
    body = b'{"prompt": {"1": {"inputs": {"seed": 184467440737095516150, "cfg": NaN}}}}'
    flow = await stand.arrive(prompt(body))
    assert b"184467440737095516150" in (flow.request.raw_content or b"")
    assert b"NaN" in (flow.request.raw_content or b"")


async def test_a_prompt_waits_for_its_socket_and_asks_again_where_to_go(stand: Stand) -> None:
    stand.relay.while_waiting = lambda: stand.routes.set_private(ALICE, POD)
    flow = await stand.arrive(prompt(BODY))
    assert stand.relay.asked == [(ALICE, "tab", SOCKET_WAIT_S)] * 2
    assert stand.relay.backends == [DUTY.id, POD.id]
    assert stand.where(flow) == POD.id
    assert hidden(flow.request)["X-Comfy-Gateway-Token"] == POD.token


async def test_a_prompt_without_a_socket_waits_for_none(stand: Stand) -> None:
    await stand.arrive(prompt(b'{"prompt": {}}'))
    assert stand.relay.asked == []


async def test_a_prompt_is_work_from_its_sending_to_its_answer(stand: Stand) -> None:
    flow = await stand.arrive(prompt(BODY))
    assert stand.activity.in_flight(DUTY.id) == 1
    await stand.answer(flow, accepted())
    assert stand.activity.in_flight(DUTY.id) == 0
    await stand.break_off(await stand.arrive(prompt(BODY)))
    assert stand.activity.in_flight(DUTY.id) == 0


# -- accepted


async def test_an_accepted_prompt_is_told_entered_and_counted(stand: Stand) -> None:
    flow = await stand.exchange(prompt(BODY), accepted("p1"))
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Prompt-Id"] == "p1"
    record = stand.ledger.find("p1")
    assert record is not None
    assert (record.user_key, record.sid, record.backend_id) == (ALICE.key, "tab", DUTY.id)
    assert record.outcome is Outcome.ACCEPTED
    count = stand.meters.registry.get_sample_value("comfy_gateway_prompts_accepted_total", {"source": "duty"})
    assert count == 1


async def test_the_id_is_ours_to_tell(stand: Stand) -> None:
    answer = accepted("p1")
    answer.headers["X-Comfy-Prompt-Id"] = "theirs"
    flow = await stand.exchange(prompt(BODY), answer)
    assert flow.response is not None
    assert flow.response.headers.get_all("X-Comfy-Prompt-Id") == ["p1"]


NOT_ACCEPTED: dict[str, Callable[[], http.Response]] = {
    "refused": lambda: accepted(status=400),
    "a redirect": lambda: accepted(status=302),
    "a broken server": lambda: accepted(status=500),
    "no JSON": lambda: http.Response.make(200, b"<html>"),
    "no id": lambda: http.Response.make(200, b'{"error": "x"}'),
    "an empty answer": lambda: http.Response.make(204),
}


@pytest.mark.parametrize("answer", NOT_ACCEPTED.values(), ids=NOT_ACCEPTED.keys())
async def test_only_an_accepted_prompt_counts(stand: Stand, answer: Callable[[], http.Response]) -> None:
    for _ in range(10):
        flow = await stand.exchange(prompt(BODY), answer())
        assert flow.response is not None
        assert "X-Comfy-Prompt-Id" not in flow.response.headers
    assert stand.begun == []
    assert stand.ledger.unfinished() == []


async def test_the_fifth_accepted_prompt_asks_for_a_pod_and_forty_at_once_ask_for_one(stand: Stand) -> None:
    flows = [await stand.arrive(prompt(BODY)) for _ in range(40)]
    for number, flow in enumerate(flows):
        assert stand.begun == ([] if number < 5 else [ALICE])
        await stand.answer(flow, accepted(f"p{number}"))
    assert stand.begun == [ALICE]


async def test_prompts_of_different_users_are_counted_apart(stand: Stand) -> None:
    for number in range(8):
        await stand.exchange(prompt(BODY, user=("alice", "bob")[number % 2]), accepted(f"p{number}"))
    assert stand.begun == []


async def test_prompts_outside_the_window_do_not_add_up(stand: Stand) -> None:
    for number in range(20):
        await stand.exchange(prompt(BODY), accepted(f"p{number}"))
        await stand.clock.advance(RULES.threshold_window_s / 3)
    assert stand.begun == []


async def test_a_prompt_of_nobody_is_entered_and_buys_nothing(stand: Stand) -> None:
    stand.change(identity=IdentityRules(is_required=False))
    for number in range(10):
        await stand.exchange(prompt(b'{"prompt": {}}', user=None), accepted(f"p{number}"))
    assert stand.begun == []
    record = stand.ledger.find("p3")
    assert record is not None
    assert record.user_key is None


async def test_a_client_id_in_the_body_names_the_user_who_is_counted(stand: Stand) -> None:
    for number in range(5):
        await stand.exchange(prompt(BODY, user=None), accepted(f"p{number}"))
    assert stand.begun == [UserId(IdKind.CLIENT, "tab")]


async def test_a_client_id_in_the_body_is_joined_to_the_one_who_is_named(stand: Stand) -> None:
    await stand.exchange(prompt(BODY), accepted())
    assert stand.edge.client_ids.owner("tab") == ALICE


async def test_with_a_threshold_of_nought_the_first_prompt_or_socket_asks_for_a_pod() -> None:
    async with standing(rules=replace(RULES, threshold_count=0)) as stand:
        await stand.arrive(ask("/queue"))
        assert stand.begun == []
        await stand.arrive(socket())
        assert stand.begun == [ALICE]
        await stand.exchange(prompt(BODY, user="bob"), accepted())
        assert stand.begun == [ALICE, UserId(IdKind.NAMED, "bob")]


async def test_a_prompt_whose_body_comes_after_the_gateway_has_ended_goes_nowhere(stand: Stand) -> None:
    flow = prompt(BODY)
    body = await stand.head(flow)
    stand.door.close()
    await stand.body(flow, body)
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert (flow.request.host, flow.request.port) == NOWHERE


async def test_an_answer_that_comes_after_the_gateway_has_ended_is_passed_on(stand: Stand) -> None:
    flow = await stand.arrive(prompt(BODY))
    stand.door.close()
    await stand.answer(flow, accepted("p1"))
    assert flow.response is not None
    assert flow.response.status_code == 200
    assert stand.ledger.find("p1") is None
