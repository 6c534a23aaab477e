"""What v2 says of pods and GPU types. Nothing of it is trusted, and pod records hold the pod's env: never logged."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from comfy_gateway.adapters.runpod.answers import amount
from comfy_gateway.adapters.runpod.pasted import checked
from comfy_gateway.core.errors import CloudUnavailable
from comfy_gateway.core.ports import CloudPod

_NOT_RUNNING: Final = frozenset({"EXITED", "ERROR"})
_IS_GONE: Final = "TERMINATED"
_IS_ALLOCATED: Final = "PROVISIONING"
_IS_UP: Final = "RUNNING"
_SOLD_OUT: Final = "NONE"


def pod_of(record: Any) -> CloudPod | None:
    """One pod, or None for one that has been terminated. Raises CloudUnavailable for a record that is none.

    ``status`` is observed, not wanted. One that is not known yet counts as a pod that starts: it may cost money.
    """
    status = record.get("status") if isinstance(record, dict) else None
    if not isinstance(status, str) or not isinstance(record.get("id"), str) or not record["id"]:
        raise CloudUnavailable("RunPod answered with a pod that has no id or no status")
    if status == _IS_GONE:
        return None
    gpu = record.get("gpu")
    is_running = status not in _NOT_RUNNING
    cost_usd = amount(record.get("cost"))
    return CloudPod(
        id=record["id"],
        name=record["name"] if isinstance(record.get("name"), str) else "",
        is_running=is_running,
        has_machine=status == _IS_UP,
        # A pod that lives is never free: its price is not known yet.
        cost_per_hour_usd=None if is_running and not cost_usd else cost_usd,
        gpu_type=gpu["id"] if isinstance(gpu, dict) and isinstance(gpu.get("id"), str) else None,
        status_text=status,
        created_at=_moment(record.get("createdAt")),
        is_placed=_is_placed(record, status) if is_running else None,
        gpu_percents=_gpu_percents(record.get("runtime")) if status == _IS_UP else None,
    )


def _is_placed(record: Mapping[str, Any], status: str) -> bool | None:
    """A pod that is being allocated is nowhere yet if it is in no data centre; with one nothing is told."""
    if status != _IS_ALLOCATED:
        return True
    return None if record.get("dataCenterId") else False


def pods_of(document: Any) -> list[CloudPod]:
    """The whole list. Raises CloudUnavailable for a null list or a broken entry: no pod ended by that."""
    records = document.get("pods") if isinstance(document, dict) else None
    if not isinstance(records, list):
        raise CloudUnavailable("RunPod answered without a list of pods")
    return [pod for record in records if (pod := pod_of(record)) is not None]


def new_pod_id(document: Any) -> str:
    """The id of a pod that was made. Raises CloudUnavailable without one: a pod may exist."""
    try:
        return checked("pod id", document["id"])
    except (KeyError, TypeError, ValueError):
        raise CloudUnavailable("RunPod answered a create call without a pod id") from None


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """What the catalogue says of one GPU type, for one cloud."""

    prices_usd: Mapping[str, float]
    """Of one GPU for an hour, by cloud; a cloud that does not offer it is left out."""
    stock: str | None
    """NONE, LOW, MEDIUM or HIGH; None where nothing is said."""
    stock_by_data_center: Mapping[str, str]

    def is_sold_out(self, data_center: str | None) -> bool:
        """Whether a pod there cannot be had now. What is not known is not sold out."""
        if self.stock is None:
            return False
        if data_center is None:
            return self.stock == _SOLD_OUT
        # Only data centres that offer it are listed.
        return self.stock_by_data_center.get(data_center, _SOLD_OUT) == _SOLD_OUT


def offer_of(document: Any) -> GpuOffer:
    """Raises CloudUnavailable for what is no GPU type."""
    prices = document.get("price") if isinstance(document, dict) else None
    if not isinstance(prices, dict):
        raise CloudUnavailable("RunPod answered without a GPU type")
    offered = {
        cloud: usd
        for cloud in ("SECURE", "COMMUNITY")
        if document.get(cloud.lower()) is not False and (usd := amount(prices.get(cloud.lower())))
    }
    stock = document.get("availability")
    centers = document.get("dataCenters")
    by_center = {
        str(center.get("id")): str(center.get("availability"))
        for center in (centers if isinstance(centers, list) else [])
        if isinstance(center, dict)
    }
    return GpuOffer(offered, stock if isinstance(stock, str) else None, by_center)


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None


def _gpu_percents(runtime: Any) -> tuple[float, ...] | None:
    """None unless every GPU is told: of a part nobody could say that the pod is idle."""
    gpus = runtime.get("gpus") if isinstance(runtime, dict) else None
    if not isinstance(gpus, list) or not gpus:
        return None
    percents = [amount(gpu.get("util")) if isinstance(gpu, dict) else None for gpu in gpus]
    told = tuple(percent for percent in percents if percent is not None)
    return told if len(told) == len(percents) else None
