"""A vault that keeps nothing and says what a test wants."""

from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.clock import FakeClock


@dataclass
class FakeVault:
    """Implements ``service.life.life.Vault``."""

    clock: FakeClock
    takes_s: float = 0.0
    """How long the files of a pod need to be safe."""
    copies: Counter[str] = field(default_factory=Counter)
    """Files on their way, by pod name."""
    fault: Exception | None = None
    asked: list[tuple[str, float, float | None]] = field(default_factory=list)
    """Pod name, deadline and patience of each call."""
    safe: list[str] = field(default_factory=list)
    """Pods whose files were waited for until they were safe."""

    def in_flight(self, pod_name: str) -> int:
        """What a test has written down."""
        return self.copies[pod_name]

    async def complete(self, pod_name: str, deadline_s: float, *, patience_s: float | None = None) -> object:
        """After a while."""
        self.asked.append((pod_name, deadline_s, patience_s))
        if self.fault is not None:
            raise self.fault
        if pod_name not in self.safe:
            await self.clock.sleep(min(self.takes_s, deadline_s))
            self.safe.append(pod_name)
        return None
