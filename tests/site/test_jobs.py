"""``/api/jobs`` of Alice's shared server and of her pod, where both are newer, one is, or none."""

from typing import Any

import pytest

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome
from simulators.comfyui import Installation
from tests.site.site_stand import ALICE
from tests.site.test_queue import busy, interrupted, outcome
from tests.site.two_servers import BOB, SECRET, TwoServers, picture, two_servers

NEWER = Installation(newer=True)
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def told(two: TwoServers, query: str = "", *, user: UserId | None = ALICE) -> dict[str, dict[str, Any]]:
    """Jobs by id, in their order."""
    answer = await two.get(f"/jobs{query}", user=user)
    assert answer["pagination"]["total"] >= len(answer["jobs"])
    return {job["id"]: job for job in answer["jobs"]}


async def test_jobs_of_both_servers_stand_in_one_list() -> None:
    async with two_servers(duty=NEWER, pod=NEWER) as two:
        ended = [await two.duty.run(), await two.pod.run(picture(1))]
        runs = [await busy(two.duty), await busy(two.pod)]
        waits = await two.pod.submit()
        jobs = await told(two)
        assert set(jobs) == {*ended, *runs, waits}
        assert list(await told(two, "?sort_order=asc&limit=2")) == ended
        assert [jobs[one]["status"] for one in (ended[0], runs[0], waits)] == [
            "completed",
            "in_progress",
            "pending",
        ]
        assert jobs[ended[1]]["preview_output"]["subfolder"] == "private-a1"
        assert jobs[ended[0]]["preview_output"]["subfolder"] == ""
        assert sorted(job["priority"] for job in jobs.values()) == [1, 2, 3, 4, 5]
        assert set(await told(two, "?status=pending,in_progress")) == {*runs, waits}
        page = await two.get("/jobs?limit=2&offset=1")
        assert page["pagination"] == {"offset": 1, "limit": 2, "total": 5, "has_more": True}
        assert [job["id"] for job in page["jobs"]] == list(jobs)[1:3]
        for one in (*runs,):
            await two.post("/interrupt", {"prompt_id": one})


async def test_a_wrong_query_is_refused_by_a_server() -> None:
    async with two_servers(duty=NEWER, pod=NEWER) as two:
        assert "Invalid status" in (await two.get("/jobs?status=odd", status=400))["error"]
        assert "limit" in (await two.get("/jobs?limit=0", status=400))["error"]


async def test_servers_without_jobs_have_none() -> None:
    async with two_servers() as two:
        prompt_id = await two.pod.run()
        for path in ("/jobs", f"/jobs/{UNKNOWN}", "/jobs?status=odd"):
            assert (await two.get(path, status=404))["error"]["type"] == "not_found"
        two.pod.sim.mood.dead = two.duty.sim.mood.dead = True
        assert (await two.get("/jobs", status=502))["error"]["type"] == "upstream_unreachable"
        assert (await two.get(f"/jobs/{prompt_id}", status=502))["error"]["type"] == "upstream_unreachable"


async def test_the_jobs_of_an_older_pod_are_made_from_its_queue_and_history() -> None:
    async with two_servers(duty=NEWER) as two:
        on_duty, on_pod = await two.duty.run(), await two.pod.run()
        runs = await busy(two.pod)
        jobs = await told(two)
        assert set(jobs) == {on_duty, on_pod, runs}
        assert jobs[on_pod]["preview_output"]["subfolder"] == "private-a1"
        assert jobs[on_pod]["create_time"] > 1_600_000_000_000
        assert {key for key in jobs[on_duty]} == {key for key in jobs[on_pod]}
        assert list(await told(two, "?status=in_progress")) == [runs]


@pytest.mark.parametrize("spoil", ["mute", "dead"])
async def test_what_a_silent_pod_has_is_told_from_ledger_and_kept_entries(spoil: str) -> None:
    async with two_servers(duty=NEWER, pod=NEWER, silence_s=0.3) as two:
        on_duty, on_pod = await two.duty.run(), await two.pod.run()
        await two.pod.keep(on_pod)
        runs, waits = await busy(two.pod), await two.pod.submit()
        whole = await told(two)
        setattr(two.pod.sim.mood, spoil, True)
        jobs = await told(two)
        assert set(jobs) == set(whole) == {on_duty, on_pod, runs, waits}
        assert [jobs[one]["status"] for one in (runs, waits)] == ["in_progress", "pending"]
        setattr(two.pod.sim.mood, spoil, False)


async def test_what_an_older_pod_has_that_talks_nonsense_is_told_from_the_ledger() -> None:
    async with two_servers(duty=NEWER) as two:
        runs = await busy(two.pod)
        two.pod.sim.mood.lying = True
        assert {one: job["status"] for one, job in (await told(two)).items()} == {runs: "in_progress"}


async def test_a_job_of_a_pod_that_is_gone_is_as_it_was() -> None:
    async with two_servers(duty=NEWER, pod=NEWER) as two:
        on_pod = await two.pod.run()
        await two.pod.keep(on_pod)
        live, whole = (await told(two))[on_pod], await two.get(f"/jobs/{on_pod}")
        assert await two.source(f"/jobs/{on_pod}") == "private"
        two.leave_pod()
        await two.duty.run()
        assert (await told(two))[on_pod] == live
        assert await two.get(f"/jobs/{on_pod}") == whole
        assert await two.source(f"/jobs/{on_pod}") is None
        assert on_pod not in await told(two, "?status=failed")
        assert SECRET not in str(whole)
        assert whole["workflow"]["extra_data"]["client_id"] == "tab"


async def test_a_list_that_was_cut_short_does_not_count_what_is_kept_twice() -> None:
    async with two_servers(duty=NEWER, pod=NEWER) as two:
        for color in range(4):
            await two.duty.keep(await two.duty.run(picture(color)))
        page = await two.get("/jobs?limit=2")
        assert (len(page["jobs"]), page["pagination"]["total"]) == (2, 4)


async def test_jobs_of_others_pods_and_what_was_taken_out_are_not_told() -> None:
    async with two_servers(duty=NEWER, pod=NEWER, silence_s=0.3) as two:
        on_pod, taken_out = await two.pod.run(), await two.pod.run()
        assert await told(two, user=BOB) == {}
        assert (await two.get(f"/jobs/{on_pod}", user=BOB, status=404)) == {"error": "Job not found"}
        two.site.ledger.forget(ALICE.key, [taken_out])
        assert list(await told(two)) == [on_pod]
        assert (await two.get("/jobs"))["pagination"]["total"] == 1
        await two.get(f"/jobs/{taken_out}", status=404)
        assert (await two.get(f"/jobs/{UNKNOWN}", status=404)) == {"error": "Job not found"}


async def test_a_job_is_cancelled_where_it_is() -> None:
    async with two_servers(duty=NEWER, pod=NEWER) as two:
        runs = [await busy(two.duty), await busy(two.pod)]
        waits = [await server.submit() for server in (two.duty, two.pod)]
        assert await two.post(f"/jobs/{waits[1]}/cancel") == (200, {"cancelled": True})
        assert outcome(two, waits[1]) is Outcome.INTERRUPTED
        assert await two.post(f"/jobs/{runs[1]}/cancel", user=BOB) == (200, {"cancelled": False})
        assert await two.post(f"/jobs/{runs[1]}/cancel") == (200, {"cancelled": True})
        await interrupted(two.pod, runs[1])
        assert await two.post("/jobs/cancel", {"job_ids": [runs[0], waits[0], UNKNOWN]}) == (
            200,
            {"cancelled": True},
        )
        await interrupted(two.duty, runs[0])
        assert outcome(two, waits[0]) is Outcome.INTERRUPTED
        assert await two.post("/jobs/cancel", {"job_ids": [runs[0]]}) == (200, {"cancelled": False})


async def test_a_wrong_order_is_refused() -> None:
    async with two_servers(duty=NEWER, pod=NEWER) as two:
        for body in ({}, {"job_ids": "x"}, [1]):
            assert (await two.post("/jobs/cancel", body))[0] == 400
        status, answer = await two.post("/jobs/cancel", {"job_ids": ["odd"]})
        assert (status, answer["invalid_ids"]) == (400, ["odd"])
        runs = await busy(two.pod)
        two.pod.sim.mood.dead = True
        assert (await two.post(f"/jobs/{runs}/cancel"))[0] == 502
