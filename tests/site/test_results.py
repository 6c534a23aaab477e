"""The histories of Alice's shared server and of her pod in one, and what is kept of both."""

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from comfy_gateway.core.files.files import FileName, files_in
from comfy_gateway.core.files.whereabouts import OnBackend, Unknown
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.site.asker import MAX_BODY_BYTES
from simulators.comfyui.prompt_queue import PromptQueue
from tests.contract.loopback import answering
from tests.site.site_stand import ALICE, PEER, duty
from tests.site.two_servers import BOB, SECRET, TwoServers, picture, sleep, two_servers

UNKNOWN = "00000000-0000-4000-8000-000000000000"


# -- the list


async def test_the_list_has_the_prompts_of_both_servers_in_the_order_of_their_ends() -> None:
    async with two_servers() as two:
        ids = [await (two.pod if turn % 2 else two.duty).run(picture(turn)) for turn in range(5)]
        told = await two.history()
        assert list(told) == ids
        numbers = [entry["prompt"][0] for entry in told.values()]
        assert numbers == [1, 2, 3, 4, 5], "the gateway's own"
        for turn, entry in enumerate(told.values()):
            [saved] = files_in(entry["outputs"])
            assert saved == FileName(f"ComfyUI_0000{turn // 2 + 1}_.png", "private-a1" if turn % 2 else "")
            assert entry["prompt"][3] == {"client_id": "tab", "extra_pnginfo": {"workflow": {"id": "w1"}}}
            assert entry["status"]["status_str"] == "success"
        assert SECRET not in str(told)


async def test_a_picture_from_the_cache_belongs_to_every_prompt_that_named_it() -> None:
    async with two_servers() as two:
        first, again = await two.pod.run(), await two.pod.run()
        told = await two.history()
        assert [list(files_in(told[one]["outputs"])) for one in (first, again)] == [
            [FileName("ComfyUI_00001_.png", "private-a1")]
        ] * 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("?max_items=2", [3, 4]),
        ("?max_items=64", [0, 1, 2, 3, 4]),
        (f"?max_items={10**30}", [0, 1, 2, 3, 4]),
        (f"?max_items=2&offset={10**30}", []),
        ("?max_items=0", []),
        ("?max_items=2&offset=1", [1, 2]),
        ("?max_items=2&offset=4", [4]),
        ("?max_items=2&offset=9", []),
        ("?offset=3", [3, 4]),
        ("?max_items=2&offset=-1", [3, 4]),
    ],
)
async def test_max_items_and_offset_count_in_the_merged_list(query: str, expected: list[int]) -> None:
    async with two_servers() as two:
        ids = [await (two.pod if turn in {1, 2} else two.duty).run() for turn in range(5)]
        assert list(await two.history(query)) == [ids[turn] for turn in expected]
        # The same when the pod's are kept and the pod is gone.
        for turn in (1, 2):
            await two.pod.keep(ids[turn])
        two.leave_pod()
        assert list(await two.history(query)) == [ids[turn] for turn in expected]


@pytest.mark.parametrize("query", ["?max_items=x", "?offset=1.5", "?max_items="])
async def test_what_is_no_number_is_a_400(query: str) -> None:
    async with two_servers() as two:
        assert (await two.get(f"/history{query}", status=400))["error"]["type"] == "bad_request"


async def test_a_prompt_that_ends_out_of_turn_has_the_greatest_number() -> None:
    async with two_servers() as two:
        early = await two.duty.submit()
        late = await two.pod.run()
        await two.duty.ended(early)
        told = await two.history()
        assert list(told) == [late, early]
        assert told[late]["prompt"][0] == 2
        assert 2 < told[early]["prompt"][0] < 3


async def test_prompts_that_the_gateway_does_not_know_keep_their_numbers_and_ours_go_on_above() -> None:
    async with two_servers() as two:
        unknown = await two.duty.submit(is_known=False, number=700)
        await two.duty.ended(unknown)
        told = await two.history()
        assert told[unknown]["prompt"][0] == 700
        assert SECRET not in str(told)
        assert two.site.ledger.next_number() == 701


async def test_what_others_do_on_duty_is_seen_and_what_they_do_on_their_pods_is_not() -> None:
    async with two_servers() as two:
        bobs, on_pod = await two.duty.run(user=BOB), await two.pod.run()
        told = await two.history(user=BOB)
        assert list(told) == [bobs]
        assert told[bobs]["prompt"][3]["client_id"] == "tab", "his own"
        told = await two.history()
        assert list(told) == [bobs, on_pod]
        assert told[bobs]["prompt"][3]["client_id"] == "upstream", "not hers to know"
        assert list(await two.history(user=None)) == [bobs]


async def test_a_server_that_forgot_does_not_make_its_users_forget() -> None:
    async with two_servers() as two:
        alices, bobs = await two.duty.run(), await two.duty.run(user=BOB)
        for prompt_id in (alices, bobs):
            await two.duty.keep(prompt_id)
        before = await two.history("?max_items=64")
        two.duty.sim.forget()
        assert await two.duty.history_ids() == []
        after = await two.duty.run()
        told = await two.history("?max_items=64")
        assert list(told) == [alices, after]
        assert told[alices] == before[alices]
        assert list(await two.history(user=BOB)) == [bobs, after]


async def test_what_is_kept_stands_where_it_ended() -> None:
    async with two_servers() as two:
        ids = [await (two.pod if turn % 2 else two.duty).run() for turn in range(4)]
        for prompt_id in ids[1::2]:
            await two.pod.keep(prompt_id)
        whole = await two.history()
        two.leave_pod()
        assert await two.history() == whole


async def test_the_database_is_asked_only_for_what_no_server_tells() -> None:
    async with two_servers() as two:
        await two.duty.keep(await two.duty.run())
        taken_out = await two.duty.submit()
        two.end(taken_out, Outcome.INTERRUPTED)
        await two.duty.ended(taken_out)

        async def entries(*_: Any, **__: Any) -> Any:
            raise AssertionError("asked")

        two.site.ledger.entries = entries  # type: ignore[method-assign] # the one way to see that it is not asked
        assert len(await two.history("?max_items=64")) == 2


async def test_only_what_opens_is_told_of_what_is_kept() -> None:
    class NothingOpens:
        async def openable(self, user_key: str | None, entries: Any) -> list[dict[str, Any]]:
            assert user_key == ALICE.key
            return [{**entry, "outputs": {}} for _, entry in entries]

    async with two_servers(openable=NothingOpens()) as two:
        on_pod, on_duty = await two.pod.run(), await two.duty.run()
        await two.pod.keep(on_pod)
        assert list(files_in((await two.history())[on_pod]["outputs"])), "the pod is there and has it"
        two.leave_pod()
        told = await two.history()
        assert told[on_pod]["outputs"] == {}
        assert told[on_duty]["outputs"]
        assert (await two.history(f"/{on_pod}"))[on_pod]["outputs"] == {}


async def test_a_prompt_that_was_lost_is_an_error_in_the_list() -> None:
    async with two_servers() as two:
        two.site.ledger.accept(PromptRecord("p1", ALICE.key, "tab", "gone", number=2))
        two.end("p1", Outcome.LOST)
        for told in (await two.history(), await two.history("/p1"), await two.history("?max_items=5")):
            assert told["p1"]["status"]["status_str"] == "error"
            assert told["p1"]["prompt"][:2] == [2, "p1"]


# -- servers that do not answer


async def test_a_silent_server_does_not_hold_up_the_other_and_its_prompts_are_told_from_what_is_kept() -> (
    None
):
    async with two_servers(silence_s=0.3) as two:
        on_duty, on_pod = await two.duty.run(), await two.pod.run()
        await two.pod.keep(on_pod)
        whole = await two.history()
        for spoil in ("mute", "dead", "lying"):
            setattr(two.pod.sim.mood, spoil, True)
            assert await two.history() == whole, spoil
            assert list(await two.history(user=BOB)) == [on_duty]
            setattr(two.pod.sim.mood, spoil, False)
        two.duty.sim.mood.mute = True
        assert list(await two.history()) == [on_pod]
        two.duty.sim.mood.mute = False


async def test_a_history_is_refused_when_no_server_answers() -> None:
    async with two_servers(silence_s=0.2) as two:
        two.duty.sim.mood.dead = two.pod.sim.mood.dead = True
        for path in ("/history", f"/history/{UNKNOWN}"):
            assert (await two.get(path, status=502))["error"]["type"] == "upstream_unreachable"
        two.duty.sim.mood.dead, two.duty.sim.mood.mute = False, True
        told = await two.get("/history", status=504)
        assert told["error"]["type"] == "upstream_timeout"
        assert "127.0.0.1" not in str(told)
        two.duty.sim.mood.mute = False


class LongHistory:
    """A server with so many entries."""

    def __init__(self, count: int, *, padding: int = 0, knows_offset: bool = True) -> None:
        self.entries: dict[str, Any] = {
            str(number): {"prompt": [number, str(number), {"x": "y" * padding}, {}, []], "outputs": {}}
            for number in range(count)
        }
        self.knows_offset = knows_offset
        self.asked: list[str] = []
        self.most_bytes = 0
        self.fails_at: int | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if len(self.asked) == self.fails_at:
            return web.Response(status=500)
        queue = PromptQueue(lambda: None)
        queue.history = self.entries
        max_items = request.query.get("max_items")
        offset = int(request.query.get("offset", -1)) if self.knows_offset else -1
        page = queue.page_of_history(None if max_items is None else int(max_items), offset)
        body = orjson.dumps(page)
        self.most_bytes = max(self.most_bytes, len(body))
        return web.Response(body=body)


@asynccontextmanager
async def alice_with(server: LongHistory, **options: Any) -> AsyncIterator[TwoServers]:
    """Alice's pod has that history."""
    async with answering(server.handle) as url, two_servers(**options) as two:
        two.site.routes.set_private(ALICE, duty(url, 9))
        yield two


@pytest.mark.parametrize("knows_offset", [True, False])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
async def test_a_whole_history_is_read_in_parts(count: int, knows_offset: bool) -> None:
    server = LongHistory(count, padding=500, knows_offset=knows_offset)
    async with alice_with(server, page_bytes=20_000) as two:
        assert list(await two.history()) == list(server.entries)
        assert list(await two.history("?offset=60")) == list(server.entries)[60:]
        assert list(await two.history("?max_items=1000")) == list(server.entries)
    if count == 300 and knows_offset:
        assert len(server.asked) > 20
        assert server.most_bytes < 50_000


@pytest.mark.parametrize(
    ("query", "expected"),
    [("?max_items=40", slice(-40, None)), ("?max_items=7&offset=90", slice(90, 97)), ("", slice(None))],
)
async def test_entries_that_are_too_large_together_are_read_a_few_at_a_time(
    query: str, expected: slice
) -> None:
    server = LongHistory(100, padding=1000)
    async with alice_with(server, max_answer_bytes=5_000, page_bytes=4_000) as two:
        assert list(await two.history(query)) == list(server.entries)[expected]


async def test_an_entry_that_is_too_large_alone_is_not_waited_for() -> None:
    server = LongHistory(3, padding=10_000)
    async with alice_with(server, max_answer_bytes=5_000) as two:
        kept = await two.duty.run()
        assert list(await two.history()) == [kept]


async def test_of_a_history_beyond_the_bound_the_newest_are_told() -> None:
    server = LongHistory(300, padding=1000)
    async with alice_with(server, page_bytes=20_000, max_list_bytes=50_000) as two:
        told = list(await two.history())
        assert told == list(server.entries)[-len(told) :]
        assert 30 < len(told) < 50


@pytest.mark.parametrize("body", [b"[1]", b"<html>", b'"text"', b""])
async def test_what_is_no_history_is_no_answer(body: bytes) -> None:
    async def nonsense(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with answering(nonsense) as url, two_servers() as two:
        two.site.routes.set_private(ALICE, duty(url, 9))
        kept = await two.duty.run()
        for query in ("", "?max_items=5", f"/{kept}"):
            assert list(await two.history(query)) == [kept]


async def test_a_server_that_breaks_off_in_the_middle_has_not_answered() -> None:
    server = LongHistory(300, padding=500)
    server.fails_at = 3
    async with alice_with(server, page_bytes=20_000) as two:
        kept = await two.duty.run()
        assert list(await two.history()) == [kept]


async def test_a_server_that_begins_anew_in_the_middle_is_read_to_its_end() -> None:
    server = LongHistory(100)
    async with alice_with(server) as two:
        server.entries = {str(number): server.entries["1"] for number in range(64)}
        told = await two.history()
        assert len(told) == 64


async def test_numbers_that_are_none_are_null() -> None:
    async def history(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"p": {"prompt": [1, "p", {"1": {"is_changed": [NaN]}}, {}, []]}}')

    async with answering(history) as url, two_servers() as two:
        two.site.routes.set_private(ALICE, duty(url, 9))
        assert (await two.history())["p"]["prompt"][2]["1"]["is_changed"] == [None]


# -- one prompt


async def test_one_prompt_is_told_by_the_server_that_has_it() -> None:
    async with two_servers() as two:
        on_duty, on_pod = await two.duty.run(), await two.pod.run()
        for prompt_id, source in ((on_duty, "duty"), (on_pod, "private")):
            assert (await two.history(f"/{prompt_id}")) == {prompt_id: (await two.history())[prompt_id]}
            assert await two.source(f"/history/{prompt_id}") == source
        assert await two.source("/history") is None
        assert await two.history(f"/{UNKNOWN}") == {}
        assert await two.history(f"/{await two.duty.submit(sleep())}") == {}, "it has not ended"


async def test_a_prompt_that_the_gateway_does_not_know_is_looked_for_on_all_servers() -> None:
    async with two_servers() as two:
        for server in (two.duty, two.pod):
            unknown = await server.submit(is_known=False)
            await server.ended(unknown)
            assert list(await two.history(f"/{unknown}")) == [unknown]
        assert await two.history(f"/{unknown}", user=BOB) == {}, "on her pod"


async def test_the_prompt_of_a_pod_is_for_its_user_and_for_who_knows_its_id_without_saying_a_name() -> None:
    async with two_servers() as two:
        on_pod, on_duty = await two.pod.run(), await two.duty.run()
        assert await two.history(f"/{on_pod}", user=BOB) == {}
        assert list(await two.history(f"/{on_duty}", user=BOB)) == [on_duty]
        assert list(await two.history(f"/{on_pod}", user=None)) == [on_pod]


async def test_who_says_no_name_is_told_whose_pictures_those_are() -> None:
    async with two_servers() as two:
        on_pod = await two.pod.run()
        saved = FileName("ComfyUI_00001_.png", "private-a1")
        assert two.site.files.resolve(None, PEER, saved) == Unknown()
        await two.history(f"/{on_pod}", user=None)
        found = OnBackend(two.pod.backend, FileName("ComfyUI_00001_.png"))
        assert two.site.files.resolve(None, PEER, saved) == found
        assert two.site.files.resolve(None, "10.9.9.9", saved) == Unknown()


async def test_the_prompt_of_a_pod_that_is_gone_is_told_as_it_is_kept() -> None:
    async with two_servers() as two:
        on_pod, not_kept = await two.pod.run(), await two.pod.run()
        await two.pod.keep(on_pod)
        live = await two.history(f"/{on_pod}")
        two.leave_pod()
        assert await two.history(f"/{on_pod}") == live
        assert await two.source(f"/history/{on_pod}") is None
        assert await two.history(f"/{not_kept}") == {}
        assert await two.history(f"/{on_pod}", user=BOB) == {}


async def test_a_kept_prompt_is_told_although_its_server_is_silent() -> None:
    async with two_servers(silence_s=0.2) as two:
        kept, other = await two.duty.run(), await two.duty.run()
        await two.duty.keep(kept)
        two.duty.sim.mood.mute = True
        assert list(await two.history(f"/{kept}")) == [kept]
        await two.get(f"/history/{other}", status=504)
        two.duty.sim.mood.mute = False


async def test_ids_with_odd_characters_are_asked_for_as_they_are() -> None:
    async with two_servers() as two:
        odd = await two.duty.run(prompt_id="a/b ü%2F?")
        assert list(await two.history("/a%2Fb%20%C3%BC%252F%3F")) == [odd]


# -- taking out


async def test_deleted_prompts_are_gone_from_their_server_and_from_what_is_kept() -> None:
    async with two_servers() as two:
        ids = [await server.run() for server in (two.duty, two.pod, two.duty, two.pod)]
        for prompt_id, server in zip(ids, (two.duty, two.pod) * 2, strict=True):
            await server.keep(prompt_id)
        assert (await two.post("/history", {"delete": ids[:2]}))[0] == 200
        assert await two.duty.history_ids() == ids[2:3]
        assert await two.pod.history_ids() == ids[3:]
        assert list(await two.history()) == ids[2:]
        assert await two.history(f"/{ids[0]}") == {}
        two.duty.sim.forget()
        two.leave_pod()
        await two.duty.run(user=BOB)
        assert set(ids) & set(await two.history()) == set(ids[2:])


async def test_what_was_deleted_while_its_server_was_silent_stays_away() -> None:
    async with two_servers(silence_s=0.2) as two:
        prompt_id = await two.pod.run()
        two.pod.sim.mood.mute = True
        assert (await two.post("/history", {"delete": [prompt_id]}))[0] == 504
        two.pod.sim.mood.mute = False
        assert await two.pod.history_ids() == [prompt_id]
        assert await two.history() == {}
        assert await two.history(f"/{prompt_id}") == {}


async def test_to_clear_empties_all_servers_of_the_user_and_what_is_kept() -> None:
    async with two_servers() as two:
        for server in (two.duty, two.pod):
            await server.keep(await server.run())
        bobs = await two.duty.run(user=BOB)
        await two.duty.keep(bobs)
        assert (await two.post("/history", {"clear": True}))[0] == 200
        assert await two.duty.history_ids() == await two.pod.history_ids() == []
        assert await two.history() == {}
        assert list(await two.history(user=BOB)) == [bobs], "what is kept of him is his"


async def test_nobody_deletes_what_is_on_the_pod_of_somebody_else() -> None:
    async with two_servers() as two:
        on_pod, on_duty = await two.pod.run(), await two.duty.run()
        assert (await two.post("/history", {"delete": [on_pod, on_duty]}, user=BOB))[0] == 200
        assert await two.pod.history_ids() == [on_pod]
        assert await two.duty.history_ids() == [], "as with a plain ComfyUI"
        assert (await two.post("/history", {"clear": True}, user=BOB))[0] == 200
        assert await two.pod.history_ids() == [on_pod]


async def test_who_knows_an_id_deletes_it_without_a_name() -> None:
    async with two_servers() as two:
        on_pod = await two.pod.run()
        assert (await two.post("/history", {"delete": [on_pod]}, user=None))[0] == 200
        assert await two.pod.history_ids() == []
        assert await two.history() == {}


async def test_prompts_that_the_gateway_does_not_know_are_deleted_wherever_they_are() -> None:
    async with two_servers() as two:
        unknown = await two.pod.submit(is_known=False)
        await two.pod.ended(unknown)
        assert (await two.post("/history", {"delete": [unknown]}))[0] == 200
        assert await two.pod.history_ids() == []


BAD: Sequence[bytes] = [b"{", b"[1]", b'{"delete": "p1"}', b'"clear"', b"\xff"]


@pytest.mark.parametrize("raw", BAD)
@pytest.mark.parametrize("path", ["/history", "/queue"])
async def test_an_order_that_cannot_be_read_is_a_400_and_does_nothing(path: str, raw: bytes) -> None:
    async with two_servers() as two:
        await two.duty.run()
        status, told = await two.post(path, raw=raw)
        assert (status, told["error"]["type"]) == (400, "bad_request")
        assert len(await two.history()) == 1


async def test_an_order_that_is_too_large_is_a_413() -> None:
    async with two_servers() as two:
        status, _ = await two.post("/history", raw=io.BytesIO(b" " * (MAX_BODY_BYTES + 1)))
        assert status == 413
