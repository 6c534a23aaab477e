"""Jobs of newer servers: made from what is kept as the servers make them, and merged."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.results.jobs import (
    JobsPage,
    JobsQuery,
    anonymous_job,
    job_of_entry,
    job_of_item,
    shown_job,
)
from simulators.comfyui import jobs as theirs
from simulators.comfyui.prompt_queue import Item, PromptQueue

SAVED = {"filename": "a.png", "subfolder": "", "type": "output"}
TEMPORARY = {"filename": "b.png", "subfolder": "", "type": "temp"}
EXTRA = {"create_time": 5, "extra_pnginfo": {"workflow": {"id": "w1"}}}


def test_the_place_of_anothers_job_tells_no_more_than_where_it_stands() -> None:
    job = {
        "id": "p",
        "status": "pending",
        "priority": 3.0,
        "create_time": 5,
        "workflow_id": "w1",
        "preview_output": SAVED,
        "outputs_count": 2,
    }
    place = {"id": "veiled", "status": "pending", "create_time": 5, "outputs_count": 0}
    place["previewable_outputs_count"] = 0
    assert anonymous_job(job, "veiled") == {**place, "priority": 3.0}
    assert anonymous_job(job, "veiled", number=7.0) == {**place, "priority": 7}
    assert anonymous_job({"status": "in_progress"}, "veiled", number=7.0) is not None
    assert anonymous_job({**job, "status": "completed"}, "veiled") is None


def entry(
    outputs: Any = None,
    *messages: Any,
    status: str = "success",
    extra_data: Any = EXTRA,
    prompt_id: str = "p",
) -> dict[str, Any]:
    return {
        "prompt": [3, prompt_id, {"1": {}}, extra_data, ["1"]],
        "outputs": outputs or {},
        "status": {"status_str": status, "completed": status == "success", "messages": list(messages)},
    }


START, END = ["execution_start", {"timestamp": 10}], ["execution_success", {"timestamp": 30}]
FAILED = ["execution_error", {"timestamp": 20, "exception_message": "no"}]
STOPPED = ["execution_interrupted", {"timestamp": 25}]

ENTRIES = {
    "done": entry({"1": {"images": [TEMPORARY, SAVED]}}, START, END),
    "only a temporary file": entry({"1": {"images": [TEMPORARY], "animated": [True]}}, START, END),
    "several nodes": entry(
        {"1": {"images": [TEMPORARY]}, "2": {"video": [SAVED], "latents": [TEMPORARY]}}, START, END
    ),
    "failed": entry({}, START, FAILED, status="error"),
    "interrupted": entry({}, START, STOPPED, status="error"),
    "without times": entry(),
    "without workflow": entry({}, START, END, extra_data={}),
}


@pytest.mark.parametrize("made_of", ENTRIES.values(), ids=ENTRIES.keys())
def test_the_job_of_an_entry_is_what_a_server_makes_of_it(made_of: dict[str, Any]) -> None:
    queue = PromptQueue(lambda: None)
    queue.history = {"p": made_of}
    [short] = theirs.all_jobs(queue)
    assert job_of_entry("p", made_of) == short
    assert job_of_entry("p", made_of, is_whole=True) == theirs.one_job(queue, "p")


def test_the_job_of_an_item_is_what_a_server_makes_of_it() -> None:
    queue = PromptQueue(lambda: None)
    queue.running, queue.pending = Item(1, "r", {}, EXTRA, []), [Item(2, "w", {}, {}, [])]
    assert [
        job_of_item(queue.running.as_json(), "in_progress"),
        job_of_item(queue.pending[0].as_json(), "pending"),
    ] == theirs.all_jobs(queue)


def test_where_no_server_noted_the_time_ours_stands() -> None:
    assert job_of_entry("p", entry(extra_data={}), created_ms=7)["create_time"] == 7
    assert job_of_entry("p", entry(), created_ms=7)["create_time"] == 5
    assert job_of_item([1, "p", {}, None, []], "pending", created_ms=7)["create_time"] == 7


PREVIEWS: dict[str, tuple[Any, Any, int]] = {
    "a model that stands alone": (
        {"1": {"result": ["mesh/A.GLB", None, "x.txt"]}},
        {"filename": "mesh/A.GLB", "type": "output", "subfolder": "", "mediaType": "3d", "nodeId": "1"},
        1,
    ),
    "a picture before a text file": (
        {"1": {"files": [{"filename": "a.txt", "type": "output"}]}, "2": {"images": [TEMPORARY]}},
        {**TEMPORARY, "nodeId": "2", "mediaType": "images"},
        2,
    ),
    "a text file alone": (
        {"1": {"files": [{"filename": "a.JSON", "type": "output"}]}},
        {"filename": "a.JSON", "type": "output", "nodeId": "1", "mediaType": "files"},
        1,
    ),
    "a film by its format": (
        {"1": {"gifs": [{"filename": "a.x", "format": "video/h264", "type": "output"}]}},
        {"filename": "a.x", "format": "video/h264", "type": "output", "nodeId": "1", "mediaType": "gifs"},
        1,
    ),
    "a text": ({"1": {"text": ["hello"]}}, {"content": "hello", "nodeId": "1", "mediaType": "text"}, 0),
    "a long text": (
        {"1": {"text": [3, "x" * 2000]}},
        {"content": "x" * 1024, "truncated": True, "nodeId": "1", "mediaType": "text"},
        0,
    ),
    "nothing to be seen": ({"1": {"latents": [{"filename": "a.latent", "type": "output"}]}}, None, 1),
    "another shape": ({"1": [1], "2": {"images": "a.png"}, "3": {"images": [3]}}, None, 0),
}


@pytest.mark.parametrize(("outputs", "preview", "count"), PREVIEWS.values(), ids=PREVIEWS.keys())
def test_the_preview_stands_for_the_job(outputs: Any, preview: Any, count: int) -> None:
    job = job_of_entry("p", entry(outputs))
    assert job.get("preview_output") == preview
    assert job["outputs_count"] == count


@pytest.mark.parametrize(
    "odd", [{}, {"prompt": None, "outputs": 3, "status": None}, {"status": {"messages": [3, ["x"]]}}]
)
def test_an_entry_of_another_shape_makes_a_job_all_the_same(odd: dict[str, Any]) -> None:
    assert job_of_entry("p", odd) == {
        "id": "p", "status": "completed", "priority": 0, "outputs_count": 0, "previewable_outputs_count": 0
    }  # fmt: skip


def test_a_servers_job_is_shown_with_alias_number_and_socket() -> None:
    job = {
        **job_of_entry("p", ENTRIES["done"], is_whole=True),
        "workflow": {"prompt": {}, "extra_data": {"client_id": "upstream", "api_key_comfy_org": "s"}},
    }
    told = shown_job(job, alias="private-1", number=7.0, sid="tab")
    assert told["priority"] == 7
    assert (
        told["preview_output"]["subfolder"] == told["outputs"]["1"]["images"][0]["subfolder"] == "private-1"
    )
    assert told["workflow"] == {"prompt": {}, "extra_data": {"client_id": "tab"}}
    assert shown_job(job, alias="")["priority"] == 3
    assert shown_job({"id": "p"}, alias="x", number=3, sid="tab") == {"id": "p"}
    assert shown_job({"workflow": {}}, alias="x", sid="tab") == {"workflow": {"extra_data": None}}


# -- the query and its page


@pytest.mark.parametrize(
    "query",
    ["status=done", "sort_by=name", "sort_order=up", "limit=0", "limit=-1", "limit=x", "limit=", "offset=x"],
)
def test_a_query_that_a_server_refuses_is_left_to_it(query: str) -> None:
    assert JobsQuery.parse(query) is None


def test_a_query_is_read_and_asked_of_each() -> None:
    query = JobsQuery.parse(
        "status=Failed,%20completed,&workflow_id=w%261&sort_by=EXECUTION_DURATION&sort_order=asc&limit=5&offset=7"
    )
    assert query == JobsQuery(
        frozenset({"failed", "completed"}), "w&1", by_duration=True, is_rising=True, limit=5, offset=7
    )
    asked = JobsQuery.parse(query.of_each())
    assert asked == JobsQuery(query.statuses, "w&1", by_duration=True, is_rising=True, limit=12, offset=0)
    assert JobsQuery.parse("offset=-3") == JobsQuery.parse("") == JobsQuery()
    assert JobsQuery().of_each() == "sort_by=created_at&sort_order=desc"


@pytest.mark.parametrize(
    ("query", "most"),
    [
        ("limit=5&offset=3", 8),
        ("", None),
        ("limit=5&sort_order=asc", None),
        ("limit=5&sort_by=execution_duration", None),
        ("limit=5&workflow_id=w", None),
    ],
)
def test_how_many_of_the_newest_can_matter(query: str, most: int | None) -> None:
    parsed = JobsQuery.parse(query)
    assert parsed is not None
    assert parsed.most_of_newest == most


def test_only_what_is_asked_for_is_wanted() -> None:
    query = JobsQuery(frozenset({"completed"}), "w1")
    assert query.wants({"status": "completed", "workflow_id": "w1"})
    assert not query.wants({"status": "completed"})
    assert not query.wants({"status": "failed", "workflow_id": "w1"})


JOBS = st.lists(
    st.fixed_dictionaries(
        {"id": st.uuids().map(str), "create_time": st.integers(1, 9)},
        optional={"execution_start_time": st.integers(1, 9), "execution_end_time": st.integers(1, 9)},
    ),
    max_size=8,
    unique_by=lambda job: job["id"],
)


@given(JOBS, st.booleans(), st.booleans(), st.none() | st.integers(1, 9), st.integers(0, 9))
def test_a_page_is_what_one_server_with_all_jobs_would_tell(
    jobs: list[dict[str, Any]], by_duration: bool, is_rising: bool, limit: int | None, offset: int
) -> None:
    query = JobsQuery(by_duration=by_duration, is_rising=is_rising, limit=limit, offset=offset)
    by = "execution_duration" if by_duration else "created_at"
    expected = theirs.ordered(jobs, by, descending=not is_rising)[offset:]
    expected = expected if limit is None else expected[:limit]
    page = query.page(jobs, len(jobs))
    assert page["jobs"] == expected
    assert page["pagination"] == {
        "offset": offset,
        "limit": limit,
        "total": len(jobs),
        "has_more": offset + len(expected) < len(jobs),
    }


def test_a_servers_page_is_read() -> None:
    page = JobsPage.read({"jobs": [{"id": "a"}, {"id": 3}, 4], "pagination": {"total": 9, "has_more": True}})
    assert page == JobsPage([{"id": "a"}], 9, has_more=True)
    assert JobsPage.read({"jobs": [{"id": "a"}]}) == JobsPage([{"id": "a"}], 1, has_more=False)
    assert JobsPage.read({"jobs": [], "pagination": {"total": True}}) == JobsPage([], 0, has_more=False)
    odds: tuple[Any, ...] = (None, [], {}, {"jobs": {}})
    for odd in odds:
        with pytest.raises(ValueError, match="no jobs"):
            JobsPage.read(odd)
