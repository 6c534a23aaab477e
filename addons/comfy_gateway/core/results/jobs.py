"""``/api/jobs`` of newer servers: queue and history in one list, told over several servers.

A job is (``comfy_execution/jobs.py``; a field without a value is left out):

    {"id", "status": "pending" | "in_progress" | "completed" | "failed" | "cancelled", "priority": number,
     "create_time": ms, "execution_start_time": ms, "execution_end_time": ms, "execution_error": {…},
     "outputs_count", "previewable_outputs_count", "preview_output": {file…, "nodeId", "mediaType"}, "workflow_id"}

and one that is asked for alone has ``outputs``, ``execution_status`` and ``workflow`` as well. Servers tell their own
jobs; what is made here is the job of a prompt that only the gateway still knows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from comfy_gateway.core.files.files import show_output
from comfy_gateway.core.results.history import plain_number, shown_extra_data

ACTIVE: Final = {"pending", "in_progress"}
STATUSES: Final = frozenset({*ACTIVE, "completed", "failed", "cancelled"})

_PREVIEWED_MEDIA: Final = frozenset({"images", "video", "audio", "3d", "text"})
_PREVIEWED_FORMATS: Final = ("video/", "audio/")
_MODELS_3D: Final = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXTS: Final = (".txt", ".md", ".json")
_MAX_TEXT: Final = 1024


@dataclass(frozen=True, slots=True)
class JobsQuery:
    """What is asked for."""

    statuses: frozenset[str] = STATUSES
    workflow_id: str = ""
    by_duration: bool = False
    is_rising: bool = False
    limit: int | None = None
    offset: int = 0

    @classmethod
    def parse(cls, query: str) -> "JobsQuery | None":
        """Read a query, or None for one that a server refuses: it has to say so itself."""
        said = {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()}
        statuses = {part.strip().lower() for part in said.get("status", "").split(",") if part.strip()}
        sort_by = said.get("sort_by", "created_at").lower()
        order = said.get("sort_order", "desc").lower()
        try:
            limit = int(said["limit"]) if "limit" in said else None
            offset = int(said.get("offset", "0"))
        except ValueError:
            return None
        is_known = sort_by in {"created_at", "execution_duration"} and order in {"asc", "desc"}
        if not is_known or not statuses <= STATUSES or (limit is not None and limit <= 0):
            return None
        return cls(
            frozenset(statuses) or STATUSES,
            said.get("workflow_id", ""),
            sort_by == "execution_duration",
            order == "asc",
            limit,
            max(offset, 0),
        )

    def of_each(self) -> str:
        """The query for each server, so that ``page`` finds everything that it needs."""
        said = {
            "sort_by": "execution_duration" if self.by_duration else "created_at",
            "sort_order": "asc" if self.is_rising else "desc",
        }
        if self.statuses != STATUSES:
            said["status"] = ",".join(sorted(self.statuses))
        if self.workflow_id:
            said["workflow_id"] = self.workflow_id
        if self.limit is not None:
            said["limit"] = str(self.offset + self.limit)
        return urlencode(said)

    @property
    def most_of_newest(self) -> int | None:
        """How many of the newest jobs decide the page, or None where older ones may."""
        is_by_age = not self.by_duration and not self.is_rising and not self.workflow_id
        return self.offset + self.limit if self.limit is not None and is_by_age else None

    def wants(self, job: Mapping[str, Any]) -> bool:
        """Whether a job made here is asked for."""
        is_of_workflow = not self.workflow_id or job.get("workflow_id") == self.workflow_id
        return is_of_workflow and job.get("status") in self.statuses

    def page(self, jobs: Iterable[Mapping[str, Any]], total: int) -> dict[str, Any]:
        """The answer: these jobs in order, cut to the window. ``total`` counts also those that were not fetched."""
        ordered = sorted(jobs, key=self._rank, reverse=not self.is_rising)
        part = ordered[self.offset :]
        part = part if self.limit is None else part[: self.limit]
        return {
            "jobs": part,
            "pagination": {
                "offset": self.offset,
                "limit": self.limit,
                "total": total,
                "has_more": self.offset + len(part) < total,
            },
        }

    def _rank(self, job: Mapping[str, Any]) -> float:
        if not self.by_duration:
            return _time(job, "create_time")
        start, end = _time(job, "execution_start_time"), _time(job, "execution_end_time")
        return end - start if start and end else 0


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A server's answer."""

    jobs: Sequence[dict[str, Any]]
    total: int
    has_more: bool

    @classmethod
    def read(cls, document: Any) -> "JobsPage":
        """Raises ValueError for what has no such shape."""
        jobs = document.get("jobs") if isinstance(document, Mapping) else None
        if not isinstance(jobs, list):
            raise ValueError("the answer has no jobs")
        about = document.get("pagination")
        total = about.get("total") if isinstance(about, Mapping) else None
        known = [job for job in jobs if isinstance(job, dict) and isinstance(job.get("id"), str)]
        counted = total if isinstance(total, int) and not isinstance(total, bool) else len(known)
        return cls(known, counted, isinstance(about, Mapping) and about.get("has_more") is True)


def shown_job(
    job: Mapping[str, Any], *, alias: str, number: float | None = None, sid: str | None = None
) -> dict[str, Any]:
    """A server's own job as clients see it: files under its alias, the gateway's number and the client's own socket id.

    ``number`` and ``sid`` as in ``core.results.history.shown_entry``.
    """
    told = dict(job)
    if number is not None and "priority" in told:
        told["priority"] = plain_number(number)
    for name in ("preview_output", "outputs"):
        if name in told:
            told[name] = show_output(told[name], alias)
    workflow = told.get("workflow")
    if isinstance(workflow, Mapping):
        told["workflow"] = {**workflow, "extra_data": shown_extra_data(workflow.get("extra_data"), sid)}
    return told


def anonymous_job(
    job: Mapping[str, Any], veiled: str, *, number: float | None = None
) -> dict[str, Any] | None:
    """The place of somebody else's job that waits or runs, with nothing else of it; None for one that has ended.

    ``veiled`` stands for its id, ``number`` as in ``shown_job``.
    """
    if job.get("status") not in ACTIVE:
        return None
    told = {name: job[name] for name in ("status", "priority", "create_time") if name in job}
    if number is not None and "priority" in told:
        told["priority"] = plain_number(number)
    return {"id": veiled, **told, "outputs_count": 0, "previewable_outputs_count": 0}


def job_of_item(item: Sequence[Any], status: str, *, created_ms: float | None = None) -> dict[str, Any]:
    """The job of an item of the queue."""
    return _without_nothing(
        {
            "id": item[1],
            "status": status,
            "priority": item[0],
            "create_time": _created_ms(item[3], created_ms),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(item[3]),
        }
    )


def job_of_entry(
    prompt_id: str, entry: Mapping[str, Any], *, created_ms: float | None = None, is_whole: bool = False
) -> dict[str, Any]:
    """The job of an entry of the history; ``is_whole`` as it is asked for alone."""
    item = entry.get("prompt")
    number, graph, extra_data = (
        (item[0], item[2], item[3]) if isinstance(item, list) and len(item) > 3 else (0, {}, {})
    )
    status = entry.get("status")
    messages = dict(_messages(status))
    end = (
        messages.get("execution_success")
        or messages.get("execution_error")
        or messages.get("execution_interrupted")
    )
    outputs = entry.get("outputs")
    outputs = outputs if isinstance(outputs, Mapping) else {}
    job = _without_nothing(
        {
            "id": prompt_id,
            "status": _status(status, messages),
            "priority": number,
            "create_time": _created_ms(extra_data, created_ms),
            "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
            "execution_end_time": (end or {}).get("timestamp"),
            "execution_error": messages.get("execution_error"),
            "outputs_count": sum(1 for _ in _files(outputs)),
            "previewable_outputs_count": sum(
                1 for _, kind, file in _files(outputs) if _is_previewed(kind, file)
            ),
            "preview_output": _preview(outputs),
            "workflow_id": _workflow_id(extra_data),
        }
    )
    if is_whole:
        job["outputs"] = outputs
        job["execution_status"] = status
        job["workflow"] = {"prompt": graph, "extra_data": extra_data}
    return job


def _status(status: Any, messages: Mapping[str, Any]) -> str:
    if not isinstance(status, Mapping) or status.get("status_str") != "error":
        return "completed"
    return "cancelled" if "execution_interrupted" in messages else "failed"


def _messages(status: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    messages = status.get("messages") if isinstance(status, Mapping) else None
    for message in messages if isinstance(messages, list) else ():
        match message:
            case [str(kind), dict(data)]:
                yield kind, data


def _files(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Node, medium and file of each. A model's name stands alone in some outputs."""
    for node, output in outputs.items():
        for medium, files in output.items() if isinstance(output, Mapping) else ():
            if medium == "animated" or not isinstance(files, list):
                continue
            for file in files:
                if isinstance(file, Mapping):
                    yield node, medium, file
                elif isinstance(file, str) and file.lower().endswith(_MODELS_3D):
                    yield (
                        node,
                        medium,
                        {"filename": file, "type": "output", "subfolder": "", "mediaType": "3d"},
                    )


def _is_previewed(medium: str, file: Mapping[str, Any]) -> bool:
    name, form = str(file.get("filename") or "").lower(), str(file.get("format") or "")
    return (
        medium in _PREVIEWED_MEDIA
        or form.startswith(_PREVIEWED_FORMATS)
        or name.endswith((*_MODELS_3D, *_TEXTS))
    )


def _preview(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The file that stands for the job: a saved one before a temporary one, both before texts."""
    best: tuple[int, dict[str, Any]] | None = None
    for node, medium, file in _files(outputs):
        if _is_previewed(medium, file):
            is_text = medium == "text" or str(file.get("filename") or "").lower().endswith(_TEXTS)
            rank = 2 if is_text else 0 if file.get("type") == "output" else 1
            if best is None or rank < best[0]:
                best = (rank, {**file, "nodeId": node, "mediaType": file.get("mediaType", medium)})
    return best[1] if best is not None else next(_texts(outputs), None)


def _texts(outputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for node, output in outputs.items():
        texts = output.get("text") if isinstance(output, Mapping) else None
        for text in texts if isinstance(texts, list) else ():
            if isinstance(text, str):
                cut = (
                    {"content": text[:_MAX_TEXT], "truncated": True}
                    if len(text) > _MAX_TEXT
                    else {"content": text}
                )
                yield {**cut, "nodeId": node, "mediaType": "text"}


def _workflow_id(extra_data: Any) -> Any:
    found = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _created_ms(extra_data: Any, otherwise: float | None) -> Any:
    said = extra_data.get("create_time") if isinstance(extra_data, Mapping) else None
    return otherwise if said is None else said


def _time(job: Mapping[str, Any], name: str) -> float:
    value = job.get(name)
    return value if isinstance(value, int | float) else 0


def _without_nothing(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if value is not None}
