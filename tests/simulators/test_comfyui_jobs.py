"""What newer cores tell of prompts as jobs, and which ids they take (server.py and jobs.py of 0.38.1)."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from simulators.comfyui import ComfySimulator, Installation
from tests.simulators.comfy_client import Duty, eventually, saved, served_as, sleeping

CANONICAL = "0c8e1f5a-3b1d-4e6f-9a2b-7d5c4e3f2a1b"
SECRETS = {"api_key_comfy_org": "secret", "auth_token_comfy_org": "secret"}


@pytest.fixture
async def newer() -> AsyncIterator[Duty]:
    async for one in served_as(ComfySimulator(installation=Installation(newer=True))):
        yield one


async def jobs(duty: Duty, query: str = "") -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = (await duty.get(f"api/jobs?{query}"))["jobs"]
    return told


async def cancelled(duty: Duty, job_id: str) -> Any:
    async with duty.http.post(f"api/jobs/{job_id}/cancel") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_older_cores_have_no_jobs(duty: Duty) -> None:
    for path in ("api/jobs", "api/jobs/x", "jobs"):
        async with duty.http.get(path) as answer:
            assert answer.status == 404


async def test_the_routes_begin_with_api_once_or_twice(newer: Duty) -> None:
    assert await newer.get("api/jobs") == await newer.get("api/api/jobs")
    async with newer.http.get("jobs") as answer:
        assert answer.status == 404


async def test_a_job_is_told_in_every_state(newer: Duty) -> None:
    done = (await newer.prompt(saved(), extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}}))["prompt_id"]
    entry = await newer.ended(done)
    failed = (await newer.prompt({"1": {"class_type": "SimFail", "inputs": {}}}))["prompt_id"]
    error = dict((await newer.ended(failed))["status"]["messages"])["execution_error"]
    newer.sim.mood.paused = True
    running = (await newer.prompt(saved(1), number=5))["prompt_id"]
    await newer.running(running)
    waiting = (await newer.prompt(saved(2), extra_data=SECRETS))["prompt_id"]
    told = {job["id"]: job for job in await jobs(newer)}
    assert {job_id: job["status"] for job_id, job in told.items()} == {
        done: "completed",
        failed: "failed",
        running: "in_progress",
        waiting: "pending",
    }
    times = {name: data["timestamp"] for name, data in entry["status"]["messages"]}
    assert told[done] == {
        "id": done,
        "status": "completed",
        "priority": 0,
        "create_time": entry["prompt"][3]["create_time"],
        "execution_start_time": times["execution_start"],
        "execution_end_time": times["execution_success"],
        "outputs_count": 1,
        "previewable_outputs_count": 1,
        "preview_output": {
            "filename": "ComfyUI_00001_.png",
            "subfolder": "",
            "type": "output",
            "nodeId": "2",
            "mediaType": "images",
        },
        "workflow_id": "w",
    }
    assert told[failed]["execution_error"] == error
    assert told[running].keys() == {
        "id",
        "status",
        "priority",
        "create_time",
        "outputs_count",
        "previewable_outputs_count",
    }
    assert told[running]["priority"] == 5.0
    whole = await newer.get(f"api/jobs/{done}")
    assert whole == {
        **told[done],
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": saved(), "extra_data": entry["prompt"][3]},
    }
    for job_id in (running, waiting):
        whole = await newer.get(f"api/jobs/{job_id}")
        assert whole.pop("workflow")["extra_data"].keys() == {"create_time"}
        assert whole == told[job_id]
    async with newer.http.get("api/jobs/unknown") as answer:
        assert (answer.status, await answer.json()) == (404, {"error": "Job not found"})


async def test_jobs_are_filtered_sorted_and_paged(newer: Duty) -> None:
    ids = []
    for color in range(3):
        ids.append((await newer.prompt(saved(color)))["prompt_id"])
        await newer.ended(ids[-1])
    newer.sim.mood.paused = True
    waiting = [(await newer.prompt(saved()))["prompt_id"] for _ in range(2)]
    await newer.running(waiting[0])
    assert {job["id"] for job in await jobs(newer, "status=completed")} == set(ids)
    assert [job["id"] for job in await jobs(newer, "status=Pending,%20in_progress&limit=9")] in (
        [waiting[0], waiting[1]],
        [waiting[1], waiting[0]],
    )
    times = [job["create_time"] for job in await jobs(newer, "sort_order=asc")]
    assert times == sorted(times)
    told = await newer.get("api/jobs?limit=2&offset=1&status=completed")
    assert len(told["jobs"]) == 2
    assert told["pagination"] == {"offset": 1, "limit": 2, "total": 3, "has_more": False}
    assert (await newer.get("api/jobs?limit=2"))["pagination"]["has_more"] is True
    assert (await newer.get("api/jobs?offset=-3"))["pagination"]["offset"] == 0
    assert await jobs(newer, "workflow_id=none") == []
    assert len(await jobs(newer, "sort_by=execution_duration")) == 5


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (
            "status=done",
            "Invalid status value(s): done. Valid values: pending, in_progress, completed, failed, cancelled",
        ),
        ("sort_by=name", "sort_by must be 'created_at' or 'execution_duration'"),
        ("sort_order=up", "sort_order must be 'asc' or 'desc'"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
    ],
)
async def test_a_senseless_question_is_refused(newer: Duty, query: str, error: str) -> None:
    async with newer.http.get(f"api/jobs?{query}") as answer:
        assert (answer.status, await answer.json()) == (400, {"error": error})


async def test_a_job_is_cancelled_in_every_state(newer: Duty) -> None:
    done = (await newer.prompt(saved()))["prompt_id"]
    await newer.ended(done)
    running = (await newer.prompt(sleeping(60)))["prompt_id"]
    await newer.running(running)
    waiting = (await newer.prompt(saved(1)))["prompt_id"]
    assert await cancelled(newer, done) == {"cancelled": False}
    assert await cancelled(newer, "unknown") == {"cancelled": False}
    assert await cancelled(newer, waiting) == {"cancelled": True}
    assert (await newer.get("queue"))["queue_pending"] == []
    assert await cancelled(newer, running) == {"cancelled": True}
    await newer.ended(running)
    assert {job["id"]: job["status"] for job in await jobs(newer)} == {
        done: "completed",
        running: "cancelled",
    }


async def test_jobs_are_cancelled_together(newer: Duty) -> None:
    running = (await newer.prompt(sleeping(60)))["prompt_id"]
    await newer.running(running)
    waiting = (await newer.prompt(saved(1)))["prompt_id"]

    async def cancel(body: Any) -> tuple[int, Any]:
        async with newer.http.post("api/jobs/cancel", json=body) as answer:
            return answer.status, await answer.json()

    assert await cancel({"job_ids": [waiting, "x", 3]}) == (
        400,
        {"error": "job_ids contains invalid id(s)", "invalid_ids": ["x", "3"]},
    )
    assert await cancel({"job_ids": "x"}) == (400, {"error": "job_ids must be a list"})
    assert await cancel({"job_ids": [str(uuid.uuid4())]}) == (200, {"cancelled": False})
    assert await cancel({"job_ids": [waiting, running]}) == (200, {"cancelled": True})

    async def idle() -> bool:
        return bool(await newer.get("prompt") == {"exec_info": {"queue_remaining": 0}})

    await eventually(idle)


@pytest.mark.parametrize(
    "prompt_id", ["mine", 7, CANONICAL.upper(), CANONICAL.replace("-", ""), f"{{{CANONICAL}}}", ""]
)
async def test_an_id_that_is_no_canonical_uuid_is_refused(newer: Duty, prompt_id: Any) -> None:
    fault = await newer.refused({"prompt": saved(), "prompt_id": prompt_id})
    assert fault["node_errors"] == {}
    assert (fault["error"]["type"], fault["error"]["message"]) == (
        "invalid_prompt_id",
        "prompt_id must be a valid UUID",
    )
    assert newer.sim.accepted == []


async def test_a_canonical_uuid_is_taken_and_null_is_none(newer: Duty) -> None:
    prompt_id = str(uuid.uuid4())
    assert (await newer.prompt(saved(), prompt_id=prompt_id))["prompt_id"] == prompt_id
    minted = (await newer.prompt(saved(), prompt_id=None))["prompt_id"]
    assert str(uuid.UUID(minted)) == minted


async def test_newer_cores_keep_secrets_out_of_the_queue_and_note_the_time(newer: Duty) -> None:
    newer.sim.mood.paused = True
    accepted = await newer.prompt(saved(), extra_data={**SECRETS, "kept": 1}, client_id="me")
    await newer.running(accepted["prompt_id"])
    (item,) = (await newer.get("queue"))["queue_running"]
    assert len(item) == 5
    created = item[3].pop("create_time")
    assert isinstance(created, int)
    assert item[3] == {"kept": 1, "client_id": "me"}
    newer.sim.mood.paused = False
    entry = await newer.ended(accepted["prompt_id"])
    assert entry["prompt"][3] == {"kept": 1, "client_id": "me", "create_time": created}
