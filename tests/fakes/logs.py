"""Logs of pods, kept in memory."""

from collections.abc import Sequence


class FakeShelf:
    """Implements ``core.ports.LogShelf``; ``is_broken`` is a disk that is full."""

    def __init__(self) -> None:
        self.logs: dict[str, list[str]] = {}
        self.is_broken = False

    async def keep(self, pod_name: str, lines: Sequence[str]) -> None:
        """Replace."""
        if self.is_broken:
            raise OSError(28, "No space left on device")
        self.logs[pod_name] = list(lines)

    async def read(self, pod_name: str, lines: int) -> Sequence[str] | None:
        """The last ones."""
        if self.is_broken:
            raise OSError(5, "Input/output error")
        kept = self.logs.get(pod_name)
        return None if kept is None else kept[-lines:]
