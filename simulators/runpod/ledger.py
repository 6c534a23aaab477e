"""What the pods cost, by the second, from their creation to their real end.

The ledger knows the truth: a pod that the gateway lost sight of goes on billing here. Storage is not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from simulators.clock import Clock
from simulators.runpod.pods import SimPod


@dataclass(frozen=True)
class LedgerRow:
    """`ended_at_s` is None while the pod lives. Times are those of the cloud's clock."""

    pod_id: str
    name: str
    gpu: str | None
    usd_per_hour: float
    created_at_s: float
    ended_at_s: float | None
    billed_s: float
    usd: float


class Ledger:
    def __init__(self, pods: Mapping[str, SimPod], clock: Clock) -> None:
        self._pods = pods
        self._clock = clock

    def rows(self) -> list[LedgerRow]:
        """One row for each pod that ever existed, oldest first."""
        return [self.row(pod_id) for pod_id in self._pods]

    def row(self, pod_id: str) -> LedgerRow:
        """KeyError for an id that never existed."""
        pod = self._pods[pod_id]
        billed_s = pod.billed_s(self._clock.monotonic())
        return LedgerRow(
            pod_id=pod.id,
            name=pod.name,
            gpu=None if pod.gpu is None else pod.gpu.id,
            usd_per_hour=pod.usd_per_hour,
            created_at_s=pod.created_at_s,
            ended_at_s=pod.ended_at_s,
            billed_s=billed_s,
            usd=billed_s * pod.usd_per_hour / 3600.0,
        )

    def total_usd(self) -> float:
        return sum(row.usd for row in self.rows())

    def usd_per_hour(self) -> float:
        """What is being spent now: the prices of the pods that bill."""
        now_s = self._clock.monotonic()
        return sum(
            pod.usd_per_hour
            for pod in self._pods.values()
            if (event := pod.last_event(now_s)) is not None and event.what in ("created", "resumed")
        )
