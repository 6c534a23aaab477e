"""Turns on the shared server, as the hooks send prompts there."""

from typing import Any

import pytest

from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from tests.hooks.stand import ALICE, DUTY, POD, Stand, prompt, standing
from tests.hooks.test_submission import accepted, body, refused, sent, told


async def send(stand: Stand, user: str, prompt_id: str, **more: Any) -> float | None:
    """One accepted prompt; returns the number that the server was sent."""
    flow = await stand.arrive(prompt(body(prompt_id, **more), user=user))
    number: float | None = sent(flow).get("number")
    await stand.answer(flow, accepted(prompt_id, number=7 if number is None else number))
    assert told(flow)[1]["number"] == (-stand.ledger._position if "front" in more else stand.ledger._position)
    return number


async def test_two_prompts_of_a_newcomer_come_after_two_of_who_queued_twenty() -> None:
    async with standing(is_fair=True) as stand:
        numbers = {f"a{place}": await send(stand, "alice", f"a{place}") for place in range(20)}
        assert numbers["a0"] is None, "alone, it is left to the server's counter"
        numbers["a0"] = 7
        stand.ledger.begin("a0")
        numbers |= {f"b{place}": await send(stand, "bob", f"b{place}") for place in range(2)}
        order = sorted(numbers, key=lambda prompt_id: numbers[prompt_id] or 0)
        assert order[:4] == ["a0", "b0", "a1", "b1"]
        known = [record for record in stand.ledger.unfinished() if record.prompt_id in {"b1", "a2", "a1"}]
        assert [one.prompt_id for one in sorted(known, key=stand.turns.order_of)] == ["a1", "b1", "a2"]
        assert [one for one in order if one[0] == "a"] == [f"a{place}" for place in range(20)]


async def test_front_goes_before_ones_own_and_is_told_as_the_gateways_number() -> None:
    async with standing(is_fair=True) as stand:
        await send(stand, "alice", "a0")
        stand.ledger.begin("a0")
        own = await send(stand, "alice", "a1")
        other = await send(stand, "bob", "b0")
        front = await send(stand, "alice", "a2", front=True)
        assert own is not None
        assert front is not None
        assert other is not None
        assert other < front < own


async def test_a_refused_prompt_uses_no_turn_and_a_pod_is_left_alone() -> None:
    async with standing(is_fair=True) as stand:
        await stand.exchange(prompt(body("p1")), refused())
        assert await send(stand, "alice", "p2", front=True) is None
        stand.routes.set_private(ALICE, POD)
        flow = await stand.arrive(prompt(body("p3", number=5)))
        assert sent(flow)["number"] == 5


async def test_what_cannot_be_a_number_is_left_for_the_server_to_refuse() -> None:
    async with standing(is_fair=True) as stand:
        flow = await stand.arrive(prompt(body("p1", number="x")))
        assert sent(flow)["number"] == "x"


@pytest.mark.parametrize("is_fair", [True, False])
async def test_more_than_one_may_queue_is_a_429_that_the_page_can_show(is_fair: bool) -> None:
    async with standing(is_fair=is_fair, most_queued=2) as stand:
        for prompt_id in ("p1", "p2"):
            await stand.exchange(prompt(body(prompt_id)), accepted(prompt_id))
        flow = await stand.exchange(prompt(body("p3")))
        status, answer = told(flow)
        assert (status, answer["error"]["type"], answer["node_errors"]) == (429, "queue_full", {})
        assert flow.response is not None
        assert int(flow.response.headers["Retry-After"]) > 0
        assert (await stand.exchange(prompt(body("p2")))).response.status_code == 200  # type: ignore[union-attr]
        assert stand.where(await stand.arrive(prompt(body("b1"), user="bob"))) == DUTY.id
        stand.ledger.end("p1", Outcome.DONE)
        assert stand.where(await stand.arrive(prompt(body("p3")))) == DUTY.id


async def test_what_waited_before_our_start_keeps_its_turn() -> None:
    async with standing(is_fair=True) as stand:
        for place in range(3):
            stand.ledger.accept(PromptRecord(f"a{place}", ALICE.key, "", DUTY.id, number=place - 5))
            stand.comfy.numbers[f"a{place}"] = 40.0 + place
        assert (await send(stand, "alice", "a3") or 0) > 42
        assert 40 <= (await send(stand, "bob", "b0") or 0) < 41


async def test_a_server_whose_queue_cannot_be_read_is_used_all_the_same() -> None:
    async with standing(is_fair=True) as stand:
        stand.comfy.down.add(DUTY.id)
        assert await send(stand, "alice", "p1") is None
