"""What newer cores tell of prompts as jobs: `/api/jobs` (comfy_execution/jobs.py of ComfyUI 0.38.1).

Only what nodes here can make is counted: files of pictures and films, no texts and no 3D models.
"""

from collections.abc import Mapping
from typing import Any

from simulators.comfyui.prompt_queue import Item, PromptQueue

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
SORTED_BY = ("created_at", "execution_duration")
PREVIEWABLE = ("images", "video", "audio")
_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")

type Job = dict[str, Any]


def all_jobs(queue: PromptQueue) -> list[Job]:
    """Running, waiting and ended ones, in short."""
    running = [queue.running] if queue.running else []
    return [
        *(_queued(item, "in_progress") for item in running),
        *(_queued(item, "pending") for item in queue.pending),
        *(_ended(entry) for entry in queue.history.values()),
    ]


def one_job(queue: PromptQueue, prompt_id: str) -> Job | None:
    """With its outputs and its workflow; None where nothing is known of it."""
    if prompt_id in queue.history:
        entry = queue.history[prompt_id]
        return {
            **_ended(entry),
            "outputs": entry["outputs"],
            "execution_status": entry["status"],
            "workflow": _workflow(entry["prompt"][2], entry["prompt"][3]),
        }
    if queue.running is not None and queue.running.prompt_id == prompt_id:
        return _with_workflow(queue.running, "in_progress")
    for item in queue.pending:
        if item.prompt_id == prompt_id:
            return _with_workflow(item, "pending")
    return None


def ordered(jobs: list[Job], by: str, *, descending: bool) -> list[Job]:
    """`by` is one of SORTED_BY. Jobs that are equal keep their order."""

    def duration(job: Job) -> int:
        start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
        return int(end - start) if start and end else 0

    def created(job: Job) -> int:
        return int(job.get("create_time", 0))

    return sorted(jobs, key=created if by == "created_at" else duration, reverse=descending)


def _queued(item: Item, status: str) -> Job:
    return _pruned(
        {
            "id": item.prompt_id,
            "status": status,
            "priority": item.number,
            "create_time": item.extra_data.get("create_time"),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(item.extra_data),
        }
    )


def _with_workflow(item: Item, status: str) -> Job:
    return {**_queued(item, status), "workflow": _workflow(item.prompt, item.extra_data)}


def _ended(entry: Mapping[str, Any]) -> Job:
    number, prompt_id, _, extra_data, _ = entry["prompt"]
    started = ended = error = None
    was_interrupted = False
    for name, data in entry["status"]["messages"]:
        if name == "execution_start":
            started = data["timestamp"]
        elif name in _ENDINGS:
            ended = data["timestamp"]
            error = data if name == "execution_error" else error
            was_interrupted = was_interrupted or name == "execution_interrupted"
    failure = "cancelled" if was_interrupted else "failed"
    files = _files(entry["outputs"])
    return _pruned(
        {
            "id": prompt_id,
            "status": "completed" if entry["status"]["status_str"] == "success" else failure,
            "priority": number,
            "create_time": extra_data.get("create_time"),
            "execution_start_time": started,
            "execution_end_time": ended,
            "execution_error": error,
            "outputs_count": len(files),
            "previewable_outputs_count": sum(file["mediaType"] in PREVIEWABLE for file in files),
            "preview_output": _preview(files),
            "workflow_id": _workflow_id(extra_data),
        }
    )


def _files(outputs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every file that the nodes show, with the node's id and the kind of its list."""
    return [
        {**item, "nodeId": node_id, "mediaType": kind}
        for node_id, shown in outputs.items()
        for kind, items in shown.items()
        if kind != "animated" and isinstance(items, list)
        for item in items
        if isinstance(item, dict)
    ]


def _preview(files: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A saved file rather than a temporary one."""
    previewable = [file for file in files if file["mediaType"] in PREVIEWABLE]
    saved = [file for file in previewable if file.get("type") == "output"]
    return next(iter([*saved, *previewable]), None)


def _workflow(prompt: Any, extra_data: Any) -> dict[str, Any]:
    return {"prompt": prompt, "extra_data": extra_data}


def _workflow_id(extra_data: Mapping[str, Any]) -> str | None:
    workflow_id: str | None = extra_data.get("extra_pnginfo", {}).get("workflow", {}).get("id")
    return workflow_id


def _pruned(job: Job) -> Job:
    return {name: value for name, value in job.items() if value is not None}
