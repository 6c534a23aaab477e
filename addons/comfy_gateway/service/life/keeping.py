"""Idle pods that somebody wants kept a while. In memory alone: after a restart of the gateway nobody has said so."""

from dataclasses import dataclass

from comfy_gateway.core.ports import Clock


@dataclass(slots=True)
class _Kept:
    until_s: float
    times: int


class Keeping:
    """By pod name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def keep(self, pod_name: str, seconds: float) -> None:
        """Once more, for so long from now."""
        self._kept[pod_name] = _Kept(self._clock.monotonic() + seconds, self.times(pod_name) + 1)

    def extend(self, pod_name: str, seconds: float) -> None:
        """For so long from now, which counts as none of the user's own times."""
        self._kept[pod_name] = _Kept(self._clock.monotonic() + seconds, self.times(pod_name))

    def left_s(self, pod_name: str) -> float:
        """How much longer; 0 where nobody wants it."""
        kept = self._kept.get(pod_name)
        return 0.0 if kept is None else max(kept.until_s - self._clock.monotonic(), 0.0)

    def times(self, pod_name: str) -> int:
        """How often it was kept."""
        kept = self._kept.get(pod_name)
        return 0 if kept is None else kept.times

    def forget(self, pod_name: str) -> None:
        """The pod has ended."""
        self._kept.pop(pod_name, None)
