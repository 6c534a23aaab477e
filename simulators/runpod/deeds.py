"""What a call does to the cloud under the fault it meets: the same for every API that is served.

Faults that strike INSIDE are carried out here; how an API says what came of it is its own affair.
"""

from dataclasses import dataclass

from simulators.runpod.cloud import RefusedError, RunPodSimulator
from simulators.runpod.faults import CAPACITY_TEXTS, RESUME_CAPACITY_TEXT, Fault, Kind
from simulators.runpod.pods import PodOrder, SimPod

STALE_S = 60.0
CRASHES_AFTER_S = 10.0


@dataclass(frozen=True)
class Deed:
    """One call. `fault` is the one that it meets, if any."""

    cloud: RunPodSimulator
    fault: Fault | None = None

    @property
    def is_null(self) -> bool:
        """Nothing is done, and the answer is null."""
        return self._met("null") is not None

    @property
    def view_s(self) -> float:
        """The moment of which the answer tells: now, or earlier under a `stale` fault."""
        now_s = self.cloud.clock.monotonic()
        stale = self._met("stale")
        if stale is None:
            return now_s
        return now_s - (STALE_S if stale.seconds is None else stale.seconds)

    def listed(self) -> list[SimPod] | None:
        """The pods that the list shows, None for a list that is null."""
        if self._met("null_list"):
            return None
        drop = self._met("drop")
        return [
            pod for pod in self.cloud.listed(self.view_s) if drop is None or drop.pod not in (None, pod.id)
        ]

    def shown(self, pod_id: str) -> SimPod | None:
        """The pod, None where the API does not know it."""
        return self.cloud.shown(pod_id, self.view_s)

    def create(self, order: PodOrder) -> SimPod:
        """The pod that the answer names; a duplicate is made beside it. Raises RefusedError."""
        self._refuse_capacity(CAPACITY_TEXTS[0])
        duplicate = self._met("duplicate")
        pods = [self._booting(self.cloud.create(order)) for _ in range(duplicate.count if duplicate else 1)]
        return pods[0]

    def stop(self, pod_id: str) -> SimPod | None:
        """The pod, stopped; None where the stop was swallowed: it is reported as done. Raises RefusedError."""
        return None if self._met("swallow") else self.cloud.stop(pod_id)

    def resume(self, pod_id: str) -> SimPod:
        """The pod, booting again. Raises RefusedError."""
        self._refuse_capacity(RESUME_CAPACITY_TEXT)
        return self._booting(self.cloud.resume(pod_id))

    def terminate(self, pod_id: str) -> None:
        """Gone, or reported as gone. Raises RefusedError for an unknown pod."""
        if not self._met("swallow"):
            self.cloud.terminate(pod_id)

    def _met(self, kind: Kind) -> Fault | None:
        return self.fault if self.fault is not None and self.fault.kind == kind else None

    def _refuse_capacity(self, text: str) -> None:
        if refusal := self._met("capacity"):
            raise RefusedError(refusal.text or text)

    def _booting(self, pod: SimPod) -> SimPod:
        """The same pod, its boot spoilt."""
        if self._met("stuck"):
            pod.stuck = True
        if self._met("no_machine"):
            pod.unplaced = True
        if crashing := self._met("crash_loop"):
            self.cloud.crash_again_and_again(
                pod, CRASHES_AFTER_S if crashing.seconds is None else crashing.seconds
            )
        if exiting := self._met("exit_after"):
            self.cloud.end_later(pod, exiting.seconds or 0.0, exiting.text or "Exited by Runpod")
        if vanishing := self._met("vanish_after"):
            self.cloud.end_later(pod, vanishing.seconds or 0.0, "Vanished", vanish=True)
        return pod
