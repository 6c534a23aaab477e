"""One simulated pod: what was asked for, what happened to it, and what can be seen of it at a moment.

Everything visible is computed from the events and a time: a stale view is simply an earlier time.

    created -> RENTED -> UP -> READY      desiredStatus RUNNING; only UP and READY have a runtime
    exited  -> EXITED                     the runtime stays for `stale_runtime_s`; `resumed` boots again
    gone    -> TERMINATED                 unknown to the API; nothing follows
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from simulators.comfyui import ComfySimulator
from simulators.runpod.catalog import GpuType
from simulators.runpod.telemetry import Telemetry


class Delays(BaseModel):
    """Seconds. Those of the boot count from the moment the pod was created (or resumed), independently.

    create_s             from the request to the pod's existence
    list_lag_s           until the list shows the pod; asking for it by id shows it at once
    runtime_s            until the container runs: `runtime` is null before
    port_s               until `runtime.ports` shows the ports and the proxy knows them
    app_ready_s          until ComfyUI listens; never before the container runs
    agent_ready_s        until the agent listens; never before the container runs
    terminate_visible_s  for which a terminated pod is still shown as it was; it no longer bills
    stale_runtime_s      for which an EXITED pod still shows its runtime
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    create_s: NonNegativeFloat = 0.0
    list_lag_s: NonNegativeFloat = 0.0
    runtime_s: NonNegativeFloat = 0.0
    port_s: NonNegativeFloat = 0.0
    app_ready_s: NonNegativeFloat = 0.0
    agent_ready_s: NonNegativeFloat = 0.0
    terminate_visible_s: NonNegativeFloat = 0.0
    stale_runtime_s: NonNegativeFloat = 0.0


RESTART_S = 5.0


class Phase(Enum):
    RENTED = "rented"
    UP = "up"
    READY = "ready"
    EXITED = "exited"
    TERMINATED = "terminated"


What = Literal["created", "exited", "resumed", "terminated", "vanished"]
_GONE: frozenset[What] = frozenset({"terminated", "vanished"})


@dataclass(frozen=True)
class Event:
    at_s: float
    what: What
    status_change: str


@dataclass(frozen=True)
class PodOrder:
    """What a create call asked for. `gpu` None is a CPU pod."""

    name: str
    image: str = ""
    template_id: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    ports: str = ""
    gpu: GpuType | None = None
    gpu_count: int = 1
    cloud_type: str = "ALL"
    data_center: str | None = None
    network_volume_id: str | None = None
    container_disk_gb: int = 10
    volume_gb: int = 0
    volume_mount_path: str = "/runpod-volume"
    docker_args: str = ""


@dataclass(eq=False)
class SimPod:
    """`comfy` is replaced when the pod is resumed: a new container remembers nothing.

    stuck           the container never starts, though the pod bills
    unplaced        the same, and the API names no machine: RunPod's bad hosts look like that
    crashes_after_s the container ends so long after each of its starts and is started again RESTART_S later, and bills
    runtime_hidden  the API shows `runtime: null` although the container runs
    app_dead, agent_dead  the process does not listen (the proxy answers 502)
    is_open         the front door asks for no token
    lease_times_s   when an authenticated agent request carried the lease header, by the cloud's clock
    """

    id: str
    order: PodOrder
    data_center: str
    machine_id: str
    usd_per_hour: float
    delays: Delays
    events: list[Event]
    comfy: ComfySimulator
    telemetry: Telemetry
    stuck: bool = False
    unplaced: bool = False
    crashes_after_s: float | None = None
    runtime_hidden: bool = False
    app_dead: bool = False
    agent_dead: bool = False
    is_open: bool = False
    lease_times_s: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.order.name

    @property
    def env(self) -> dict[str, str]:
        return self.order.env

    @property
    def gpu(self) -> GpuType | None:
        return self.order.gpu

    @property
    def created_at_s(self) -> float:
        return self.events[0].at_s

    @property
    def ended_at_s(self) -> float | None:
        """When the pod was terminated or vanished, None while it lives (an EXITED pod lives)."""
        last = self.events[-1]
        return last.at_s if last.what in _GONE else None

    @property
    def http_ports(self) -> frozenset[int]:
        """Ports that the proxy serves: those declared as `8188/http`. A bare `8188` is none."""
        return frozenset(number for number, kind in self.declared_ports if kind == "http")

    @property
    def declared_ports(self) -> list[tuple[int, str]]:
        declared = []
        for entry in self.order.ports.split(","):
            number, _, kind = entry.strip().partition("/")
            if number.isdigit():
                declared.append((int(number), kind or "tcp"))
        return declared

    def last_event(self, at_s: float) -> Event | None:
        """The newest event at that time, None before the pod existed."""
        return next((event for event in reversed(self.events) if event.at_s <= at_s), None)

    def phase(self, at_s: float) -> Phase:
        """Where the pod really is, whatever the API shows. Before its creation it counts as TERMINATED."""
        event = self.last_event(at_s)
        if event is None or event.what in _GONE:
            return Phase.TERMINATED
        if event.what == "exited":
            return Phase.EXITED
        age_s = at_s - event.at_s
        up_s = self._container_s(age_s)
        if self.stuck or self.unplaced or up_s is None:
            return Phase.RENTED
        is_ready = up_s + self.delays.runtime_s >= self.delays.app_ready_s
        return Phase.READY if not self.app_dead and is_ready else Phase.UP

    def up_for_s(self, at_s: float) -> float | None:
        """Seconds since the container started, None where it does not run."""
        event = self.last_event(at_s)
        if event is None or self.phase(at_s) not in (Phase.UP, Phase.READY):
            return None
        return self._container_s(at_s - event.at_s)

    def container_runs(self, age_s: float) -> bool:
        """Whether the container of a boot that is so old runs, were the pod neither stuck nor on no machine."""
        return self._container_s(age_s) is not None

    def ports_registered(self, at_s: float) -> bool:
        event = self.last_event(at_s)
        return (
            event is not None and self.up_for_s(at_s) is not None and at_s - event.at_s >= self.delays.port_s
        )

    def app_listens(self, at_s: float) -> bool:
        return self.phase(at_s) is Phase.READY

    def agent_listens(self, at_s: float) -> bool:
        up_s = self.up_for_s(at_s)
        return (
            up_s is not None
            and not self.agent_dead
            and up_s + self.delays.runtime_s >= self.delays.agent_ready_s
        )

    def shown_event(self, at_s: float) -> Event | None:
        """The newest event that the API knows of at that time, None where it does not know the pod.

        Differs from the truth for `terminate_visible_s` after a termination.
        """
        event = self.last_event(at_s)
        if (
            event is not None
            and event.what == "terminated"
            and at_s - event.at_s < self.delays.terminate_visible_s
        ):
            return self.events[self.events.index(event) - 1]
        return None if event is None or event.what in _GONE else event

    def listed(self, at_s: float) -> bool:
        return self.shown_event(at_s) is not None and at_s - self.created_at_s >= self.delays.list_lag_s

    def shown_runtime_s(self, at_s: float) -> float | None:
        """Age in seconds of the boot whose runtime the API shows at that time, None where it shows null."""
        event = self.shown_event(at_s)
        if event is None or self.stuck or self.unplaced or self.runtime_hidden:
            return None
        started = event
        if event.what == "exited":
            if at_s - event.at_s >= self.delays.stale_runtime_s:
                return None
            started = self.events[self.events.index(event) - 1]
            if event.at_s - started.at_s < self.delays.runtime_s:
                return None
        up_s = self._container_s(at_s - started.at_s)
        return None if up_s is None else up_s + self.delays.runtime_s

    def _container_s(self, age_s: float) -> float | None:
        """Seconds since the container last started, of a boot that is so old; None while it does not run."""
        up_s = age_s - self.delays.runtime_s
        if up_s < 0:
            return None
        if self.crashes_after_s is None:
            return up_s
        up_s %= self.crashes_after_s + RESTART_S
        return up_s if up_s < self.crashes_after_s else None

    def billed_s(self, until_s: float) -> float:
        """Seconds for which the GPU was paid: from each start to the next stop, exit or end."""
        total_s = 0.0
        started_s: float | None = None
        for event in self.events:
            if event.at_s > until_s:
                break
            if event.what in ("created", "resumed"):
                started_s = event.at_s
            elif started_s is not None:
                total_s += event.at_s - started_s
                started_s = None
        return total_s if started_s is None else total_s + until_s - started_s
