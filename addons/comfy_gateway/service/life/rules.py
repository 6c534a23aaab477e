"""The settings that the life of a session depends on, in the units that it counts in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy_gateway.core.life.boot import BootLimits
from comfy_gateway.core.life.idleness import IdleLimits
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.budget import Budget
from comfy_gateway.core.money.hours import Hours
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.core.money.profiles import Profile, Profiles
from comfy_gateway.core.ports import Candidate

NO_BUDGET = Budget()
ALL_HOURS = Hours()
USUAL_MARKET = MarketLimits()


@dataclass(frozen=True, slots=True)
class Rules:
    """All durations in seconds."""

    candidates: tuple[Candidate, ...]
    """Where to buy, in order; empty where provisioning is off."""
    caps: Caps
    idle: IdleLimits
    profiles: tuple[Profile, ...] = ()
    teams: Mapping[str, frozenset[str]] = field(default_factory=dict)
    max_usd_per_hour: float = 0.0
    """Of one pod; 0: no ceiling."""
    budget: Budget = NO_BUDGET
    hours: Hours = ALL_HOURS
    min_lease_s: float = 0.0
    """Idleness alone ends no pod that is younger."""
    market: MarketLimits = USUAL_MARKET
    threshold_count: int = 5
    threshold_window_s: float = 60.0
    burst_wait_s: float = 0.0
    """A longer predicted wait on duty earns a pod by itself; 0: no wait does."""
    bursts_for_missing: bool = False
    """Whether a prompt that duty refuses, and pods can run, earns one."""
    startup_timeout_s: float = 360.0
    startup_most_s: float = 3600.0
    no_machine_s: float = 180.0
    waits_for_models: bool = False
    """Whether a pod is used only when its model_sync has ended."""
    startup_poll_s: float = 5.0
    agent_wait_s: float = 30.0
    min_agent: str | None = None
    """Pods whose agent is older are drained after a restart; None: no image is too old."""
    allows_open_pods: bool = False
    """Whether a pod is used whose ComfyUI answers without the token."""
    telemetry_poll_s: float = 60.0
    failure_backoff_s: float = 30.0
    most_backoff_s: float = 600.0
    drain_timeout_s: float = 120.0
    vault_deadline_s: float = 300.0
    """How long the end of a pod waits until its files are safe."""
    reconcile_s: float = 15.0
    pod_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further environment of each pod; may hold secrets."""

    @property
    def boot(self) -> BootLimits:
        """How long a pod may start; a sync that stands still for a quarter of the usual time is stuck, and what is in
        the container gets half of it."""
        timeout_s = self.startup_timeout_s
        return BootLimits(
            timeout_s,
            max(self.startup_most_s, timeout_s),
            stall_s=max(timeout_s / 4, 10.0),
            container_s=timeout_s / 2,
            no_machine_s=self.no_machine_s,
        )

    @property
    def reserve_s(self) -> float:
        """For so long a pod costs at least once it is bought."""
        return max(self.idle.idle_s, self.min_lease_s)

    @property
    def buying(self) -> Profiles:
        """Where whose pods are bought."""
        return Profiles(self.candidates, self.profiles, self.teams)

    @property
    def is_provisioning(self) -> bool:
        """Whether pods are bought at all."""
        return bool(self.candidates)
