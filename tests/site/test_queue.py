"""The queues of Alice's shared server and of her pod in one; every action goes to the server that has the prompt."""

from typing import Any

import pytest

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from tests.conditions import wait_for
from tests.site.site_stand import ALICE
from tests.site.two_servers import BOB, SECRET, Server, TwoServers, picture, sleep, two_servers


async def ids(two: TwoServers, *, user: UserId | None = ALICE) -> tuple[list[str], list[str]]:
    """What runs and what waits, as the site tells it."""
    told = await two.get("/queue", user=user)
    running, waiting = ([item[1] for item in told[f"queue_{name}"]] for name in ("running", "pending"))
    return running, waiting


async def busy(server: Server, **more: Any) -> str:
    """A prompt that runs there until it is interrupted."""
    prompt_id = await server.submit(sleep(), **more)
    await server.runs(prompt_id)
    return prompt_id


def outcome(two: TwoServers, prompt_id: str) -> Outcome:
    record = two.site.ledger.find(prompt_id)
    assert record is not None
    return record.outcome


# -- what is told


async def test_the_queue_has_what_runs_and_waits_on_both_servers() -> None:
    async with two_servers() as two:
        runs = [await busy(two.duty), await busy(two.pod)]
        waits = [await server.submit() for server in (two.pod, two.duty, two.pod)]
        assert await ids(two) == (runs, waits)
        told = await two.get("/queue")
        assert [item[0] for item in told["queue_running"] + told["queue_pending"]] == [1, 2, 3, 4, 5]
        assert told["queue_running"][0][2] == sleep()
        assert told["queue_running"][0][3]["client_id"] == "tab"
        assert told["queue_pending"][0][4] == ["2"]
        assert SECRET not in str(told), "which ComfyUI 0.3.64 shows to everybody"
        assert await two.source("/queue") is None


async def test_what_others_do_on_duty_is_seen_and_what_they_do_on_their_pods_is_not() -> None:
    async with two_servers() as two:
        bobs, unknown = await busy(two.duty, user=BOB), await two.duty.submit(is_known=False)
        on_pod = await busy(two.pod)
        assert await ids(two) == ([bobs, on_pod], [unknown])
        assert await ids(two, user=BOB) == ([bobs], [unknown])
        assert await ids(two, user=None) == ([bobs], [unknown])
        told = (await two.get("/queue"))["queue_running"]
        assert told[0][3]["client_id"] == "upstream"


@pytest.mark.parametrize("spoil", ["mute", "dead", "lying"])
async def test_what_a_server_has_that_does_not_answer_is_told_from_the_ledger(spoil: str) -> None:
    async with two_servers(silence_s=0.3) as two:
        runs, waits = await busy(two.pod), await two.pod.submit()
        on_duty = await busy(two.duty)
        before = await ids(two)
        setattr(two.pod.sim.mood, spoil, True)
        assert await ids(two) == ([on_duty, runs], [waits])
        assert (sorted(before[0]), before[1]) == (sorted([on_duty, runs]), [waits])
        assert await ids(two, user=BOB) == ([on_duty], [])
        setattr(two.pod.sim.mood, spoil, False)


async def test_a_prompt_on_its_way_from_a_dead_pod_to_duty_still_waits() -> None:
    async with two_servers() as two:
        waits = await two.pod.submit()
        body = b'{"prompt": {"1": {"class_type": "X"}}, "extra_data": {"api_key_comfy_org": "the-secret"}}'
        record = PromptRecord("p9", ALICE.key, "tab", two.pod.backend.id, number=9)
        two.site.ledger.reserve(record)
        await two.site.ledger.write_down(record, body, stored_body=body)
        two.site.ledger.confirm("p9")
        two.leave_pod()
        told = await two.get("/queue")
        assert [item[1] for item in told["queue_pending"]] == [waits, "p9"]
        assert told["queue_pending"][1] == [9, "p9", {"1": {"class_type": "X"}}, {}, []]
        assert await ids(two, user=BOB) == ([], [])


async def test_a_queue_is_refused_when_no_server_answers() -> None:
    async with two_servers(silence_s=0.2) as two:
        two.duty.sim.mood.dead = two.pod.sim.mood.mute = True
        assert (await two.get("/queue", status=504))["error"]["type"] == "upstream_timeout"
        two.pod.sim.mood.mute = False


FULL = Visibility(Isolation.FULL)


async def test_where_others_are_hidden_places_and_counts_follow_the_order_in_which_all_run() -> None:
    """Alice has queued two before bob came, and after what runs it is his turn."""
    async with two_servers(visibility=FULL) as two:
        two.leave_pod()
        runs = await two.duty.submit(sleep(), number=0.5)
        await two.duty.runs(runs)
        hers = [await two.duty.submit(number=number) for number in (2.25, 3.25)]
        his = await two.duty.submit(user=BOB, number=1.75)
        two.site.order.update({runs: 0.5, hers[0]: 2.25, hers[1]: 3.25, his: 1.75})
        told = await two.get("/queue", user=BOB)
        queue = [*told["queue_running"], *told["queue_pending"]]
        assert [item[0] for item in queue] == [3, 4, 5, 6]
        assert queue[1][1] == his
        assert [item[2:] for item in (queue[0], *queue[2:])] == [[{}, {}, []]] * 3
        told = await two.get("/queue")
        assert [item[0] for item in told["queue_running"] + told["queue_pending"]] == [1, 1.5, 2, 3]
        counts = [
            await two.get("/prompt", user=user) for user in (BOB, ALICE, UserId.from_key("named:carol"))
        ]
        assert [count["exec_info"]["queue_remaining"] for count in counts] == [2, 4, 0]


async def test_what_waits_on_ones_own_pod_is_counted_by_the_pod_itself() -> None:
    async with two_servers(visibility=FULL) as two:
        for _ in range(2):
            await two.pod.submit(sleep(), is_known=False)
        assert await two.get("/prompt") == {"exec_info": {"queue_remaining": 2}}
        two.pod.sim.mood.dead = True
        assert (await two.get("/prompt", status=502))["error"]["type"] == "upstream_unreachable"


@pytest.mark.parametrize("isolation", [Isolation.ACTIONS, Isolation.FULL])
async def test_a_prompt_whose_answer_is_still_to_come_has_its_own_number_everywhere(
    isolation: Isolation,
) -> None:
    async with two_servers(visibility=Visibility(isolation)) as two:
        two.leave_pod()
        record = PromptRecord("p1", ALICE.key, "tab", two.duty.backend.id, number=41)
        two.site.ledger.reserve(record)
        url = two.duty.backend.upstream.url("/prompt")
        body = {"prompt": picture(), "client_id": "x", "prompt_id": "p1", "number": 7.25}
        async with two.site.http.post(url, json=body) as response:
            assert response.status == 200
        await wait_for(two.duty.history_ids, "the prompt's end")
        told = (await two.history())["p1"]["prompt"]
        assert (told[0], told[3]["client_id"]) == (41, "tab")
        one = await two.history("/p1", user=BOB)
        assert one == {} if isolation is Isolation.FULL else one["p1"]["prompt"][0] == 41
        assert two.site.ledger.next_number() == 1, "the server's number is not counted on from"


# -- taking out


async def test_a_waiting_prompt_is_taken_out_where_it_waits_and_has_ended() -> None:
    async with two_servers() as two:
        runs = [await busy(two.duty), await busy(two.pod)]
        waits = [await server.submit() for server in (two.duty, two.pod, two.duty, two.pod)]
        assert (await two.post("/queue", {"delete": [*waits[:2], runs[0]]}))[0] == 200
        assert await ids(two) == (runs, waits[2:])
        assert [outcome(two, one) for one in waits[:2]] == [Outcome.INTERRUPTED] * 2
        assert outcome(two, runs[0]) is Outcome.RUNNING, "what runs goes on, as with ComfyUI"


async def test_to_clear_takes_out_what_waits_on_all_servers_of_the_user() -> None:
    async with two_servers() as two:
        runs = [await busy(two.duty), await busy(two.pod)]
        waits = [await server.submit() for server in (two.duty, two.pod)]
        bobs = await two.duty.submit(user=BOB)
        assert (await two.post("/queue", {"clear": True}))[0] == 200
        assert await ids(two) == (runs, [])
        assert [outcome(two, one) for one in (*waits, bobs)] == [Outcome.INTERRUPTED] * 3, "as with ComfyUI"


async def test_to_clear_ones_own_queue_leaves_the_pods_of_others_alone() -> None:
    async with two_servers() as two:
        runs, waits = await busy(two.pod), await two.pod.submit()
        assert (await two.post("/queue", {"clear": True, "delete": [runs, waits]}, user=BOB))[0] == 200
        assert await ids(two) == ([runs], [waits])


async def test_a_prompt_that_is_still_being_sent_has_not_been_taken_out() -> None:
    async with two_servers() as two:
        two.site.ledger.accept(PromptRecord("p9", ALICE.key, "tab", two.duty.backend.id))
        assert (await two.post("/queue", {"clear": True, "delete": ["p9"]}))[0] == 200
        assert outcome(two, "p9") is Outcome.ACCEPTED, "it was not in the queue before either"


async def test_a_prompt_that_nobody_knows_is_taken_out_wherever_it_is() -> None:
    async with two_servers() as two:
        await busy(two.pod)
        unknown = await two.pod.submit(is_known=False)
        assert (await two.post("/queue", {"delete": [unknown, "never heard of", 3]}))[0] == 200
        assert unknown not in await two.pod.queue_ids()


async def test_an_order_that_a_server_did_not_hear_is_refused() -> None:
    async with two_servers(silence_s=0.2) as two:
        waits = await two.pod.submit()
        two.pod.sim.mood.mute = True
        assert (await two.post("/queue", {"delete": [waits]}))[0] == 504
        two.pod.sim.mood.mute = False


# -- interrupting


async def interrupted(server: Server, prompt_id: str) -> None:
    entry = await server.ended(prompt_id)
    assert "execution_interrupted" in str(entry["status"]["messages"])


async def test_the_prompt_that_is_named_is_interrupted_on_its_server() -> None:
    async with two_servers() as two:
        on_duty, on_pod = await busy(two.duty), await busy(two.pod)
        assert (await two.post("/interrupt", {"prompt_id": on_duty}))[0] == 200
        await interrupted(two.duty, on_duty)
        assert on_pod in await two.pod.queue_ids()
        assert (await two.post("/interrupt", {"prompt_id": on_pod}, user=BOB))[0] == 200
        assert (await two.post("/interrupt", {"prompt_id": 3}))[0] == 200
        assert on_pod in await two.pod.queue_ids(), "not his"
        assert (await two.post("/interrupt", {"prompt_id": on_pod}, user=None))[0] == 200
        await interrupted(two.pod, on_pod)


@pytest.mark.parametrize("raw", [b"", b"{}", b"no JSON"])
async def test_without_a_name_what_runs_of_ones_own_is_interrupted_wherever_it_runs(raw: bytes) -> None:
    async with two_servers() as two:
        on_duty, on_pod = await busy(two.duty), await busy(two.pod)
        assert (await two.post("/interrupt", raw=raw))[0] == 200
        await interrupted(two.duty, on_duty)
        await interrupted(two.pod, on_pod)


async def test_without_a_name_the_prompt_of_somebody_else_on_duty_is_left_alone_by_who_runs_on_a_pod() -> (
    None
):
    async with two_servers() as two:
        bobs, on_pod = await busy(two.duty, user=BOB), await busy(two.pod)
        assert (await two.post("/interrupt"))[0] == 200
        await interrupted(two.pod, on_pod)
        assert bobs in await two.duty.queue_ids()


async def test_without_a_name_and_without_a_prompt_whatever_runs_on_the_own_server_is_interrupted() -> None:
    async with two_servers() as two:
        bobs = await busy(two.duty, user=BOB)
        assert (await two.post("/interrupt"))[0] == 200
        assert bobs in await two.duty.queue_ids(), "her next prompt goes to her pod"
        assert (await two.post("/interrupt", user=None))[0] == 200, "as with ComfyUI"
        await interrupted(two.duty, bobs)


async def test_an_interrupt_that_no_server_heard_is_refused() -> None:
    async with two_servers(silence_s=0.2) as two:
        on_pod = await busy(two.pod)
        two.pod.sim.mood.dead = True
        assert (await two.post("/interrupt", {"prompt_id": on_pod}))[0] == 502
        assert (await two.post("/interrupt"))[0] == 502


async def test_a_cleared_queue_goes_on_with_the_next_prompt() -> None:
    async with two_servers() as two:
        runs = await busy(two.duty)
        await two.duty.submit()
        await two.post("/queue", {"clear": True})
        await two.post("/interrupt", {"prompt_id": runs})
        again = await two.duty.submit(picture(5))
        await two.duty.ended(again)

        async def is_empty() -> bool:
            return await ids(two) == ([], [])

        await wait_for(is_empty, "an empty queue")
