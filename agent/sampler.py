"""Takes one sample after another, for however many listeners."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from agent.clock import Clock
from agent.comfyui import Queue
from agent.gpu import GpuReading
from agent.machine import MachineReading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One message of telemetry."""

    number: int
    """Counts from 1 since the agent's start."""
    timestamp: float
    """Seconds since the epoch."""
    uptime_s: float
    gpus: list[GpuReading] = field(default_factory=list)
    machine: MachineReading = field(default_factory=MachineReading)
    queue: Queue | None = None

    def as_json(self) -> dict[str, Any]:
        """The message of the contract (docs/telemetry.md)."""
        machine = asdict(self.machine)
        model_sync = machine.pop("model_sync")
        return {
            "timestamp": round(self.timestamp, 3),
            "uptime_s": round(self.uptime_s, 3),
            "gpus": [asdict(gpu) for gpu in self.gpus],
            **machine,
            "comfyui": self.queue
            and {"queue_running": self.queue.running, "queue_pending": self.queue.pending},
            "model_sync": model_sync,
        }

    @cached_property
    def text(self) -> str:
        """The message as one line of JSON, written once for all listeners."""
        return json.dumps(self.as_json(), separators=(",", ":"))


class Sampler:
    """The one place where samples are taken.

    take        takes the sample of this number
    interval_s  between the beginnings of two samples
    """

    def __init__(self, take: Callable[[int], Awaitable[Sample]], interval_s: float, clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._news = asyncio.Event()
        self.interval_s = interval_s
        self.latest: Sample | None = None

    async def after(self, number: int) -> Sample:
        """The newest sample as soon as it is newer than that one. Those in between are not made up for: a slow
        listener gets fewer samples and never old ones."""
        while self.latest is None or self.latest.number <= number:
            await self._news.wait()
        return self.latest

    async def run(self) -> None:
        """Take samples for ever."""
        number = 0
        due_s = self._clock.monotonic()
        while True:
            try:
                self.latest = await self._take(number + 1)
            except Exception:
                logger.exception("no sample could be taken")
            else:
                number += 1
                news, self._news = self._news, asyncio.Event()
                news.set()
            now_s = self._clock.monotonic()
            due_s = max(due_s + self.interval_s, now_s)
            await self._clock.sleep(due_s - now_s)
