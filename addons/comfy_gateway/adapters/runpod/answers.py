"""What RunPod's answers say. Every function takes what the SDK returned and trusts none of it.

Pod records hold the pod's env in clear: they are read here and never logged or kept.
"""

import math
import re
from datetime import datetime
from typing import Any, Final

from comfy_gateway.adapters.runpod.pasted import checked
from comfy_gateway.core.errors import CapacityRefused, CloudUnavailable
from comfy_gateway.core.ports import CloudPod

_RENTED: Final = re.compile(r"Rented by User: (?P<time>.+ GMT[+-]\d{4})", re.IGNORECASE)


def pod_of(record: Any) -> CloudPod:
    """One pod. Raises CloudUnavailable for a record that is none.

    ``desiredStatus`` is intent. An EXITED pod keeps showing its runtime for a while, so a runtime counts only
    while the pod is meant to run.
    """
    if not isinstance(record, dict) or not isinstance(record.get("id"), str) or not record["id"]:
        raise CloudUnavailable("RunPod answered with a pod that has no id")
    is_running = record.get("desiredStatus") == "RUNNING"
    machine = record.get("machine")
    return CloudPod(
        id=record["id"],
        name=_text(record.get("name")) or "",
        is_running=is_running,
        has_machine=is_running and record.get("runtime") is not None,
        cost_per_hour_usd=amount(record.get("costPerHr")),
        gpu_type=_text(machine.get("gpuDisplayName")) if isinstance(machine, dict) else None,
        status_text=(status_text := _text(record.get("lastStatusChange")) or ""),
        created_at=_rented_at(status_text),
        is_placed=_is_placed(record) if is_running else None,
    )


def pods_of(answer: Any) -> list[CloudPod]:
    """The whole list. Raises CloudUnavailable for a null list or a broken entry: no pod ended by that."""
    if not isinstance(answer, list):
        raise CloudUnavailable("RunPod answered without a list of pods")
    return [pod_of(record) for record in answer]


def new_pod_id(answer: Any) -> str:
    """The id that a create call returned.

    Raises CapacityRefused for null, RunPod's other way to say that no machine is free, and CloudUnavailable
    for an answer without a usable id: a pod may exist then.
    """
    if answer is None:
        raise CapacityRefused("RunPod found no machine (empty answer)")
    try:
        return checked("pod id", answer["id"])
    except (KeyError, TypeError, ValueError):
        raise CloudUnavailable("RunPod answered a create call without a pod id") from None


def gpu_price_usd(answer: Any, cloud_type: str) -> float | None:
    """Price of one GPU for one hour. ALL may land on either cloud, so it costs what the dearer one does."""
    if not isinstance(answer, dict):
        raise CloudUnavailable("RunPod answered without a GPU type")
    fields = {
        "SECURE": ["securePrice"],
        "COMMUNITY": ["communityPrice"],
        "ALL": ["securePrice", "communityPrice"],
    }[cloud_type]
    prices = [price for name in fields if (price := amount(answer.get(name)))]
    return max(prices, default=None)


def _is_placed(record: dict[str, Any]) -> bool:
    """On a bad host a pod is RUNNING, perhaps with a machine's id, and nothing is told of the machine itself."""
    machine = record.get("machine")
    says_something = isinstance(machine, dict) and any(machine.values())
    return says_something or record.get("runtime") is not None


def _rented_at(status_text: str) -> datetime | None:
    """The time in "Rented by User: Tue Nov 24 2026 04:22:40 GMT+0000 (…)"; any later change hides it."""
    found = _RENTED.match(status_text)
    if found is None:
        return None
    try:
        return datetime.strptime(found["time"], "%a %b %d %Y %H:%M:%S GMT%z")
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def amount(value: Any) -> float | None:
    """A number from 0 on, such as a price, or None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
