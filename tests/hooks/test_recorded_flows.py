"""Flows that mitmproxy reads from a file meet the hooks as well. All has happened: nothing may happen again."""

from collections.abc import Callable

import pytest
from mitmproxy import http
from mitmproxy.flow import Error
from mitmproxy.test import tflow

from comfy_gateway.core.people.users import UserId
from comfy_gateway.hooks import edge
from tests.hooks.stand import ALICE, DUTY, Stand, ask, prompt, socket
from tests.hooks.test_prompts import BODY, accepted


async def loaded(stand: Stand, flow: http.HTTPFlow, answer: http.Response) -> http.HTTPFlow:
    """As `mitmdump -r` and mitmweb's "open" do it: all events, with the answer there from the start."""
    flow.response = answer
    flow.live = False
    for hook in stand.hooks:
        await stand.mitmproxy.cycle(hook, flow)
    return flow


MADE: dict[str, Callable[[], http.HTTPFlow]] = {
    "prompt": lambda: prompt(BODY),
    "socket": lambda: socket("/ws?clientId=tab"),
    "page by name": lambda: ask("/?user_id=bob", headers=[("User-Agent", "Mozilla/5.0"), ("Accept", "text/html")]),
    "picture": lambda: ask("/view?filename=a.png&type=input"),
    "nobody": lambda: ask("/queue", user=None),
    "foreign": lambda: ask("/queue", headers=[("Origin", "http://evil.example")]),
    "chunked prompt": lambda: ask("/prompt", method="POST", headers=[("Transfer-Encoding", "chunked")]),
}  # fmt: skip


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
@pytest.mark.parametrize("made", MADE.values(), ids=MADE.keys())
async def test_a_flow_from_a_file_stays_as_it_is(
    stand: Stand, made: Callable[[], http.HTTPFlow], is_open: bool
) -> None:
    if not is_open:
        stand.door.close()
    flow = made()
    flow.comment = "seen last week"
    before = http.HTTPFlow.from_state({**flow.get_state(), "response": accepted().get_state()})
    await loaded(stand, flow, accepted())
    after = flow.get_state()
    for part in ("request", "metadata", "comment"):
        assert after[part] == before.get_state()[part]
    assert flow.response is not None
    assert dict(flow.response.headers) == dict(accepted().headers)
    assert flow.request.stream is False


async def test_prompts_from_a_file_are_neither_entered_nor_counted_and_wait_for_no_socket(
    stand: Stand,
) -> None:
    for number in range(10):
        flow = prompt(BODY)
        # What the gateway of that time noted stands in the file.
        flow.metadata |= {
            edge.PROMPT: True,
            edge.USER: ALICE.key,
            edge.BACKEND: DUTY.id,
            edge.SOURCE: "duty",
        }
        await loaded(stand, flow, accepted(f"p{number}"))
    assert stand.begun == []
    assert stand.ledger.find("p1") is None
    assert stand.relay.asked == []
    assert stand.edge.client_ids.owner("tab") is None


async def test_a_transfer_from_a_file_does_not_end_one_that_runs(stand: Stand) -> None:
    await stand.arrive(ask("/view?filename=a.png&type=input"))
    flow = ask("/view?filename=b.png&type=input")
    flow.metadata |= {edge.SETTLED: True, edge.TRANSFER: DUTY.id}
    await loaded(stand, flow, http.Response.make(200))
    assert stand.activity.in_flight(DUTY.id) == 1


async def test_a_transfer_that_a_person_kills_is_over(stand: Stand) -> None:
    flow = await stand.arrive(ask("/view?filename=a.png&type=input"))
    assert flow.killable
    flow.kill()
    assert flow.error is not None
    assert flow.error.msg == Error.KILLED_MESSAGE
    await stand.break_off(flow)
    assert stand.activity.in_flight(DUTY.id) == 0


async def test_the_frames_of_a_file_are_all_shown(stand: Stand) -> None:
    flow = tflow.twebsocketflow()
    flow.live = False
    assert flow.websocket is not None
    count = len(flow.websocket.messages)
    assert count > 1
    for hook in stand.hooks:
        await stand.mitmproxy.cycle(hook, flow)
    assert len(flow.websocket.messages) == count


async def test_a_request_that_is_sent_again_by_a_person_goes_where_it_went(stand: Stand) -> None:
    """mitmproxy's client replay: the flow lives, and brings what was noted of its first journey."""
    first = await stand.exchange(ask("/system_stats"))
    again = first.copy()
    again.response, again.live, again.is_replay = None, True, "request"
    await stand.arrive(again)
    assert stand.where(again) == DUTY.id
    assert again.request.path == first.request.path
    assert UserId.from_key(again.metadata[edge.USER]) == ALICE
