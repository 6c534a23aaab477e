"""/api/jobs, of newer cores (server.py of ComfyUI 0.38.1).

The routes begin with /api in the source already, so that they exist as /api/jobs and, as every route's twin,
as /api/api/jobs, and not as /jobs.
"""

import json
from typing import Any

from aiohttp import web

from simulators.comfyui.executor import Executor
from simulators.comfyui.jobs import SORTED_BY, STATUSES, all_jobs, one_job, ordered
from simulators.comfyui.prompt_queue import PromptQueue
from simulators.comfyui.prompt_routes import checked_job_id


class JobRoutes:
    def __init__(self, queue: PromptQueue, executor: Executor) -> None:
        self._queue = queue
        self._executor = executor

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/jobs", self.list_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
            web.post("/api/jobs/{job_id}/cancel", self.cancel_job),
            web.post("/api/jobs/cancel", self.cancel_jobs),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        query = request.query
        statuses = [word.strip().lower() for word in query.get("status", "").split(",") if word.strip()]
        if unknown := [word for word in statuses if word not in STATUSES]:
            valid = ", ".join(STATUSES)
            return _refused(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {valid}")
        sort_by = query.get("sort_by", "created_at").lower()
        if sort_by not in SORTED_BY:
            return _refused("sort_by must be 'created_at' or 'execution_duration'")
        sort_order = query.get("sort_order", "desc").lower()
        if sort_order not in ("asc", "desc"):
            return _refused("sort_order must be 'asc' or 'desc'")
        try:
            limit = _whole(query, "limit")
            offset = max(_whole(query, "offset") or 0, 0)
        except ValueError as error:
            return _refused(str(error))
        if limit is not None and limit <= 0:
            return _refused("limit must be a positive integer")
        jobs = [job for job in all_jobs(self._queue) if not statuses or job["status"] in statuses]
        if workflow_id := query.get("workflow_id"):
            jobs = [job for job in jobs if job.get("workflow_id") == workflow_id]
        jobs = ordered(jobs, sort_by, descending=sort_order == "desc")
        page = jobs[offset:] if limit is None else jobs[offset : offset + limit]
        pagination = {
            "offset": offset,
            "limit": limit,
            "total": len(jobs),
            "has_more": offset + len(page) < len(jobs),
        }
        return web.json_response({"jobs": page, "pagination": pagination})

    async def get_job(self, request: web.Request) -> web.Response:
        job = one_job(self._queue, request.match_info["job_id"])
        return _refused("Job not found", 404) if job is None else web.json_response(job)

    async def cancel_job(self, request: web.Request) -> web.Response:
        return web.json_response({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return _refused("Request body must be valid JSON")
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return _refused("job_ids must be a list")
        if invalid := [told for told in job_ids if not _is_job_id(told)]:
            names = [told if isinstance(told, str) else repr(told) for told in invalid]
            told = {"error": "job_ids contains invalid id(s)", "invalid_ids": names}
            return web.json_response(told, status=400)
        cancelled = [self._cancel(job_id) for job_id in job_ids]
        return web.json_response({"cancelled": any(cancelled)})

    def _cancel(self, prompt_id: str) -> bool:
        """Whether it ran or waited: it is interrupted or taken out then, as by /interrupt and /queue."""
        running = self._queue.running
        if running is not None and running.prompt_id == prompt_id:
            self._executor.interrupt()
            return True
        return self._queue.delete(prompt_id)


def _is_job_id(told: Any) -> bool:
    try:
        checked_job_id(told)
    except ValueError:
        return False
    return True


def _whole(query: Any, name: str) -> int | None:
    """Raises ValueError with the answer's words."""
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError as error:
        raise ValueError(f"{name} must be an integer") from error


def _refused(error: str, status: int = 400) -> web.Response:
    return web.json_response({"error": error}, status=status)
