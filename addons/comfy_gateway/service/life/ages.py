"""How old pods are, however the machine's clock is set meanwhile."""

from collections.abc import Collection

from comfy_gateway.core.life.session import Pod
from comfy_gateway.core.ports import Clock


class Ages:
    """Reads the clock of the wall once for each pod, when its age is first asked for, and counts on from there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._born_s: dict[str, float] = {}
        """By pod name: on the monotonic clock, which may be before this process began."""

    def age_s(self, pod: Pod) -> float:
        """Seconds since the pod was ordered; never less than none."""
        now_s = self._clock.monotonic()
        if pod.name not in self._born_s:
            told_s = (self._clock.now() - pod.ordered_at).total_seconds()
            self._born_s[pod.name] = now_s - max(told_s, 0.0)
        return now_s - self._born_s[pod.name]

    def keep(self, pod_names: Collection[str]) -> None:
        """Forget all others."""
        self._born_s = {name: born_s for name, born_s in self._born_s.items() if name in pod_names}

    def forget(self, pod_name: str) -> None:
        """The pod has ended."""
        self._born_s.pop(pod_name, None)
