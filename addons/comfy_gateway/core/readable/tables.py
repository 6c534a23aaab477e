"""ComfyUI's lists of prompts as tables: ``/queue``, ``/history`` and ``/api/jobs``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tabulate import tabulate

from comfy_gateway.core.prompts.prompts import outcome_of_history
from comfy_gateway.core.readable.workflow import nodes_of
from comfy_gateway.core.results.queue_merge import Queue

MAX_ROWS: Final = 500
MAX_FILES: Final = 3
_JOB: Final = ("id", "status", "priority", "create_time", "outputs_count")

type Row = Sequence[Any]


def read_list(document: Any) -> str:
    """The table. Raises ValueError for what is none of the three."""
    for read in _READERS:
        if (table := read(document)) is not None:
            return table
    raise ValueError("no list of prompts")


def is_list(document: Any) -> bool:
    """Whether ``read_list`` has something to show."""
    return any(read(document) is not None for read in _READERS)


def _queue(document: Any) -> str | None:
    if (
        not isinstance(document, Mapping)
        or "queue_running" not in document
        or "queue_pending" not in document
    ):
        return None
    try:
        queue = Queue.read(document)
    except ValueError:
        return None
    rows = [
        (state, item[0], item[1], _count(item[2]), _client(item[3]) if len(item) > 3 else "")
        for state, items in (("running", queue.running), ("waiting", queue.pending))
        for item in items
    ]
    return _table(("state", "number", "prompt", "nodes", "client_id"), rows)


def _history(document: Any) -> str | None:
    if not isinstance(document, Mapping) or not document:
        return None
    if not all(isinstance(entry, Mapping) and "outputs" in entry for entry in document.values()):
        return None
    rows = [
        (prompt_id, str(outcome_of_history(entry)), _seconds(entry), _files(entry["outputs"]))
        for prompt_id, entry in document.items()
    ]
    return _table(("prompt", "outcome", "seconds", "files"), rows)


def _jobs(document: Any) -> str | None:
    jobs = document.get("jobs") if isinstance(document, Mapping) else None
    if not isinstance(jobs, list) or not all(isinstance(job, Mapping) for job in jobs):
        return None
    return _table(_JOB, [[job.get(name, "") for name in _JOB] for job in jobs])


_READERS: Final[tuple[Callable[[Any], str | None], ...]] = (_queue, _jobs, _history)


def _table(titles: Sequence[str], rows: Sequence[Row]) -> str:
    left = len(rows) - MAX_ROWS
    table = tabulate(rows[:MAX_ROWS], titles, disable_numparse=True)
    return f"{table}\n… {left} more" if left > 0 else table


def _count(workflow: Any) -> str:
    nodes = nodes_of(workflow)
    return "" if nodes is None else str(len(nodes))


def _client(extra: Any) -> str:
    return str(extra.get("client_id", "")) if isinstance(extra, Mapping) else ""


def _seconds(entry: Mapping[str, Any]) -> str:
    """From the first to the last of its messages, whose times are in milliseconds."""
    match entry.get("status"):
        case {"messages": list(messages)}:
            times = [
                data["timestamp"]
                for data in (
                    message[1] for message in messages if isinstance(message, list) and len(message) == 2
                )
                if isinstance(data, Mapping) and isinstance(data.get("timestamp"), int | float)
            ]
            return f"{(max(times) - min(times)) / 1000:.1f}" if times else ""
    return ""


def _files(outputs: Any) -> str:
    names = list(_names(outputs))
    more = len(names) - MAX_FILES
    return ", ".join(names[:MAX_FILES]) + (f" and {more} more" if more > 0 else "")


def _names(outputs: Any) -> Iterable[str]:
    for output in outputs.values() if isinstance(outputs, Mapping) else ():
        for files in output.values() if isinstance(output, Mapping) else ():
            for file in files if isinstance(files, list) else ():
                if isinstance(file, Mapping) and "filename" in file:
                    yield str(file["filename"])
