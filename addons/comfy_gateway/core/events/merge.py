"""What several servers say, told as if it were one."""

from collections.abc import Iterable, Mapping
from typing import Any


def read_queue_remaining(status_data: Mapping[str, Any]) -> int | None:
    """Prompts running and waiting according to the data of a ``status`` message, or None.

    The shape is ``{"status": {"exec_info": {"queue_remaining": 3}}, "sid"?: …}``.
    """
    remaining = _object(_object(status_data.get("status")).get("exec_info")).get("queue_remaining")
    return remaining if isinstance(remaining, int) and not isinstance(remaining, bool) else None


def total_queue_remaining(counts: Iterable[int | None]) -> int | None:
    """The sum of what is known, or None when nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def status_data(latest: Mapping[str, Any], queue_remaining: int | None, sid: str | None) -> dict[str, Any]:
    """Data of a ``status`` message: as a server sent it last, with the merged count in it.

    ``sid`` is the client's own, or None after its first message. Without a count the server's words stay as
    they are.
    """
    data = {key: value for key, value in latest.items() if key != "sid"}
    if queue_remaining is not None:
        status = _object(data.get("status"))
        exec_info = _object(status.get("exec_info"))
        data["status"] = {**status, "exec_info": {**exec_info, "queue_remaining": queue_remaining}}
    if sid is not None:
        data["sid"] = sid
    return data


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
