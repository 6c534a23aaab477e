"""The simulated cloud: pods, money, faults and the doors of every pod. HTTP is in `server.py`.

All methods belong to the event loop's thread. With the default `RealClock` those that start or end a pod need
the running loop.
"""

import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from simulators.clock import Clock, RealClock
from simulators.comfyui import ComfySimulator, Installation
from simulators.runpod.account import (
    HOURS_IN_ADVANCE,
    NO_MONEY_TEXT,
    SETTLED_EVERY_S,
    SPEND_CAP_TEXT,
    AccountChange,
    TokenBucket,
    rate_limit_headers,
)
from simulators.runpod.catalog import (
    CPU_POD_USD_PER_HOUR,
    DEFAULT_DATA_CENTER,
    GPU_TYPES,
    GpuType,
    NetworkVolume,
    Stock,
)
from simulators.runpod.faults import CAPACITY_TEXTS, Call, Fault, FaultTable
from simulators.runpod.hosting import Borrowed, Hosting
from simulators.runpod.ledger import Ledger
from simulators.runpod.pods import RESTART_S, Delays, Event, PodOrder, SimPod, What
from simulators.runpod.telemetry import Telemetry

START_BALANCE_USD = 100.0
AgentKind = Literal["simulated", "real", "leased"]

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The cloud says no; the message is the one that the APIs show, `status` that of the REST API's answer."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class RunPodSimulator:
    """One account with its pods.

    api_key        the key that API calls must bear
    delays         of pods that are created from now on; may be replaced at any time
    clock          `FakeClock` lets a test jump
    step_s         handed to the ComfyUI of every pod
    seed           of everything random, the ids of pods too
    comfy_port, agent_port  where ComfyUI's front door and the agent listen inside a pod
    enforce_lease  pods with an AUTH_TOKEN in their env end themselves as our agent does: AGENT_BOOT_GRACE_S
                   after its start if no lease came, later AGENT_LEASE_S after the last one (from the env)
    comfy          builds the ComfyUI of a pod from the pod's name
    installation   of every pod's ComfyUI, unless `comfy` builds it
    agent          "real": pods run `python -m agent` on ComfyUI's folders, for everything but telemetry;
                   "leased": for telemetry too, and it ends its pod itself, by the API and `api_base`
    borrowed       a ComfyUI that runs elsewhere: every pod shows this one, so let there be one pod at a time

    `stock` says by GPU type how many are left (HIGH where it says nothing); of NONE no pod can be made. `retired`
    ends the GraphQL API: 410, whatever is asked. `pods` holds every pod that ever existed, by id, oldest first.
    `calls` counts API operations (including refused ones) and `call_log` keeps them in order.
    """

    def __init__(
        self,
        *,
        api_key: str = "test-key",
        delays: Delays | None = None,
        clock: Clock | None = None,
        gpu_types: Sequence[GpuType] = GPU_TYPES,
        network_volumes: Sequence[NetworkVolume] = (),
        step_s: float = 0.0,
        seed: int = 0,
        comfy_port: int = 8188,
        agent_port: int = 8000,
        enforce_lease: bool = True,
        comfy: Callable[[str], ComfySimulator] | None = None,
        installation: Installation | None = None,
        agent: AgentKind = "simulated",
        borrowed: Borrowed | None = None,
    ) -> None:
        self.api_key = api_key
        self.delays = delays or Delays()
        self.clock = clock or RealClock()
        self.gpu_types = {gpu.id: gpu for gpu in gpu_types}
        self.network_volumes = {volume.id: volume for volume in network_volumes}
        self.comfy_port = comfy_port
        self.agent_port = agent_port
        self.enforce_lease = enforce_lease and agent != "leased"
        self.api_base = ""
        """Where the pods reach the API; `serve` sets it."""
        self.stock: dict[str, Stock] = {}
        self.retired = False
        self.faults = FaultTable(seed=seed)
        self.pods: dict[str, SimPod] = {}
        self.ledger = Ledger(self.pods, self.clock)
        self.calls: Counter[str] = Counter()
        self.call_log: list[Call] = []
        self.hosting = Hosting(borrowed)
        self.agent = agent
        self._comfy = comfy or (
            lambda name: ComfySimulator(name=name, step_s=step_s, installation=installation)
        )
        self._machines = itertools.count(1)
        self._ids = random.Random(f"ids of {seed}")
        self._bucket: TokenBucket | None = None
        self._start_balance_usd = START_BALANCE_USD
        self._has_bounded_balance = False
        self._spend_cap_usd_per_hour: float | None = None
        self._is_settling = False

    def living(self) -> list[SimPod]:
        """Pods that were neither terminated nor vanished, oldest first. EXITED ones live, too."""
        return [pod for pod in self.pods.values() if pod.ended_at_s is None]

    def stock_of(self, gpu: GpuType) -> Stock:
        """How many of these are left, in RunPod's words."""
        return self.stock.get(gpu.id, "HIGH")

    def balance_usd(self) -> float:
        """What is left on the account. Nothing happens below nothing, unless ``change_account`` has bounded it."""
        return self._start_balance_usd - self.ledger.total_usd()

    def change_account(self, told: AccountChange) -> None:
        """Bound what the account may do from now on; what is not told stays, None takes the bound away."""
        if "balance_usd" in told.model_fields_set:
            self._has_bounded_balance = told.balance_usd is not None
            self._start_balance_usd = self.ledger.total_usd() + (
                START_BALANCE_USD if told.balance_usd is None else told.balance_usd
            )
            self._settle_later()
        if "spend_cap_usd_per_hour" in told.model_fields_set:
            self._spend_cap_usd_per_hour = told.spend_cap_usd_per_hour
        if "calls_per_minute" in told.model_fields_set:
            self._bucket = (
                None
                if told.calls_per_minute is None
                else TokenBucket(told.calls_per_minute, self.clock.monotonic())
            )

    def rate_limited(self) -> dict[str, str] | None:
        """Headers of the 429 that a call gets now, None where it may go on."""
        wait_s = None if self._bucket is None else self._bucket.take(self.clock.monotonic())
        if self._bucket is None or wait_s is None:
            return None
        self.calls["rate_limited"] += 1
        return rate_limit_headers(wait_s, self._bucket.per_minute)

    def calls_since(self, at_s: float) -> Counter[str]:
        """API calls by operation since that time of the cloud's clock."""
        return Counter(call.operation for call in self.call_log if call.at_s >= at_s)

    def strike(self, call: Call) -> Fault | None:
        """Count a call and say which fault it meets, if any."""
        self.calls[call.operation] += 1
        self.call_log.append(call)
        return self.faults.strike(call)

    def create(self, order: PodOrder) -> SimPod:
        """Make a pod that bills from now on. Raises RefusedError."""
        price = self._price(order)
        self._refuse_unpayable(price)
        data_center = self._data_center(order)
        now_s = self.clock.monotonic()
        machine = next(self._machines)
        pod = SimPod(
            id=f"{self._ids.getrandbits(56):014x}",
            order=order,
            data_center=data_center,
            machine_id=f"machine{machine:04}",
            usd_per_hour=price,
            delays=self.delays,
            events=[Event(now_s, "created", self._status_change("Rented by User"))],
            comfy=self._comfy(order.name),
            telemetry=Telemetry(self.clock),
        )
        self.pods[pod.id] = pod
        self._log(pod, "created")
        self._watch_lease(pod)
        self._settle_later()
        return pod

    def shown(self, pod_id: str, at_s: float | None = None) -> SimPod | None:
        """The pod if the API knows it (at that time), else None."""
        pod = self.pods.get(pod_id)
        if pod is None or pod.shown_event(self._moment(at_s)) is None:
            return None
        return pod

    def listed(self, at_s: float | None = None) -> list[SimPod]:
        """The pods that the API lists (or listed at that time)."""
        return [pod for pod in self.pods.values() if pod.listed(self._moment(at_s))]

    def stop(self, pod_id: str) -> SimPod:
        """EXITED, keeps its id and stops billing the GPU. Raises RefusedError for an unknown pod."""
        pod = self._known(pod_id)
        if self._runs(pod):
            self._end(pod, "exited", "Exited by user")
        return pod

    def resume(self, pod_id: str) -> SimPod:
        """Boot an EXITED pod again, with an empty ComfyUI. Raises RefusedError for an unknown pod."""
        pod = self._known(pod_id)
        if pod.events[-1].what == "exited":
            pod.events.append(
                Event(self.clock.monotonic(), "resumed", self._status_change("Resumed by user"))
            )
            pod.comfy = self._comfy(pod.name)
            pod.stuck = pod.unplaced = False
            pod.crashes_after_s = None
            self._log(pod, "resumed")
            self._watch_lease(pod)
        return pod

    def terminate(self, pod_id: str) -> None:
        """The pod is gone and costs nothing more. Raises RefusedError for an unknown pod.

        What the real service answers for an unknown id was never measured; this is a guess.
        """
        pod = self._known(pod_id)
        if pod.ended_at_s is None:
            self._end(pod, "terminated", "Terminated by user")

    def kill(self, pod_id: str, cause: str = "Exited by Runpod") -> None:
        """The cloud ends the container: EXITED. KeyError for an id that never existed."""
        pod = self.pods[pod_id]
        if self._runs(pod):
            self._end(pod, "exited", cause)

    def vanish(self, pod_id: str) -> None:
        """The pod is gone without a word, from the list too. KeyError for an id that never existed."""
        pod = self.pods[pod_id]
        if pod.ended_at_s is None:
            self._end(pod, "vanished", "Vanished")

    def kill_app(self, pod_id: str, *, dead: bool = True) -> None:
        """ComfyUI stops listening and its connections break, or it listens again."""
        pod = self.pods[pod_id]
        pod.app_dead = dead
        if dead:
            self.hosting.cut(pod, self.comfy_port)

    def restart_app(self, pod_id: str) -> None:
        """ComfyUI ends and is started again in the same container: its files stay, all else is lost."""
        pod = self.pods[pod_id]
        self.hosting.cut(pod, self.comfy_port)
        if self.hosting.runs(pod):
            pod.comfy.restart()

    def kill_agent(self, pod_id: str, *, dead: bool = True) -> None:
        """The agent stops listening, its connections break and its memory is lost, or it listens again."""
        pod = self.pods[pod_id]
        pod.agent_dead = dead
        if dead:
            self.hosting.cut(pod, self.agent_port)
            self.hosting.end_agent(pod)

    def end_later(self, pod: SimPod, after_s: float, cause: str, *, vanish: bool = False) -> None:
        """Kill the pod, or let it vanish, after so many seconds, unless another boot began by then."""
        boot = pod.events[-1]

        def end() -> None:
            if pod.events[-1] is not boot:
                return
            if vanish:
                self.vanish(pod.id)
            else:
                self.kill(pod.id, cause)

        self.clock.call_later(after_s, end)

    def crash_again_and_again(self, pod: SimPod, after_s: float) -> None:
        """The container ends so long after each of its starts. Its connections break, and its memory is lost."""
        pod.crashes_after_s = after_s
        boot = pod.events[-1]

        def crash() -> None:
            if pod.events[-1] is not boot or pod.crashes_after_s is None:
                return
            self.hosting.stop(pod)
            pod.comfy = self._comfy(pod.name)
            self.clock.call_later(after_s + RESTART_S, crash)

        self.clock.call_later(pod.delays.runtime_s + after_s, crash)

    def renew_lease(self, pod: SimPod) -> None:
        """What an authenticated agent request with the lease header does."""
        pod.lease_times_s.append(self.clock.monotonic())
        self._watch_lease(pod)

    def agent_env(self, pod: SimPod) -> dict[str, str]:
        """The environment of a pod's real agent: what the order says, and what RunPod adds where it has a lease."""
        own = {name: value for name, value in pod.env.items() if not name.startswith("RUNPOD_")}
        if self.agent != "leased":
            return own
        named = {"RUNPOD_POD_ID": pod.id, "RUNPOD_API_KEY": self.api_key, "RUNPOD_API_BASE": self.api_base}
        return own | named

    async def close(self) -> None:
        """Stop every pod's server. The pods stay as they are."""
        await self.hosting.close()

    def _refuse_unpayable(self, usd_per_hour: float) -> None:
        if self._has_bounded_balance and self.balance_usd() < usd_per_hour * HOURS_IN_ADVANCE:
            raise RefusedError(NO_MONEY_TEXT, status=402)
        cap = self._spend_cap_usd_per_hour
        if cap is not None and self.ledger.usd_per_hour() + usd_per_hour > cap:
            raise RefusedError(SPEND_CAP_TEXT)

    def _settle_later(self) -> None:
        if self._has_bounded_balance and not self._is_settling and any(map(self._runs, self.living())):
            self._is_settling = True
            self.clock.call_later(SETTLED_EVERY_S, self._settle)

    def _settle(self) -> None:
        """Without money pods with a network volume are stopped, and the others are terminated with all they have."""
        self._is_settling = False
        if self._has_bounded_balance and self.balance_usd() <= 0:
            for pod in self.living():
                if not self._runs(pod):
                    continue
                if pod.order.network_volume_id is not None:
                    self._end(pod, "exited", "Exited by Runpod: Insufficient balance")
                else:
                    self._end(pod, "terminated", "Terminated by Runpod: Insufficient balance")
        self._settle_later()

    def _price(self, order: PodOrder) -> float:
        if order.gpu is None:
            return CPU_POD_USD_PER_HOUR
        if self.stock_of(order.gpu) == "NONE":
            raise RefusedError(CAPACITY_TEXTS[0])
        cloud_type = "SECURE" if order.network_volume_id else order.cloud_type
        price = order.gpu.usd_per_hour(cloud_type)
        if price is None or (order.network_volume_id and order.cloud_type == "COMMUNITY"):
            raise RefusedError(CAPACITY_TEXTS[0])
        return price * order.gpu_count

    def _data_center(self, order: PodOrder) -> str:
        """A network volume pins the data centre; asking for another one looks like a lack of capacity."""
        if order.network_volume_id is None:
            return order.data_center or DEFAULT_DATA_CENTER
        volume = self.network_volumes.get(order.network_volume_id)
        if volume is None or order.data_center not in (None, volume.data_center):
            raise RefusedError(CAPACITY_TEXTS[0])
        return volume.data_center

    def _known(self, pod_id: str) -> SimPod:
        pod = self.shown(pod_id)
        if pod is None:
            raise RefusedError("pod not found", status=404)
        return pod

    def _runs(self, pod: SimPod) -> bool:
        return pod.events[-1].what in ("created", "resumed")

    def _end(self, pod: SimPod, what: What, cause: str) -> None:
        pod.events.append(Event(self.clock.monotonic(), what, self._status_change(cause)))
        self.hosting.stop(pod)
        self._log(pod, what)

    def _watch_lease(self, pod: SimPod) -> None:
        boot = pod.events[-1]
        if not self.enforce_lease or "AUTH_TOKEN" not in pod.env or boot.what not in ("created", "resumed"):
            return
        renewed = len(pod.lease_times_s)
        since_boot = any(at_s >= boot.at_s for at_s in pod.lease_times_s)
        patience_s = _seconds(pod.env, "AGENT_LEASE_S", 1200.0)
        if not since_boot:
            # the agent counts from its own start
            ready_s = max(pod.delays.runtime_s, pod.delays.agent_ready_s)
            patience_s = ready_s + _seconds(pod.env, "AGENT_BOOT_GRACE_S", 2700.0)

        def expire() -> None:
            up = pod.agent_listens(self.clock.monotonic())
            if up and pod.events[-1] is boot and len(pod.lease_times_s) == renewed:
                self._end(pod, "terminated", "Terminated by its own agent")

        self.clock.call_later(patience_s, expire)

    def _moment(self, at_s: float | None) -> float:
        return self.clock.monotonic() if at_s is None else at_s

    def _status_change(self, cause: str) -> str:
        at = datetime.fromtimestamp(self.clock.time(), UTC)
        return f"{cause}: {at:%a %b %d %Y %H:%M:%S} GMT+0000 (Coordinated Universal Time)"

    def _log(self, pod: SimPod, what: str) -> None:
        log.info("pod %s (%s) %s, $%.4f so far", pod.id, pod.name, what, self.ledger.row(pod.id).usd)


def _seconds(env: dict[str, str], name: str, default_s: float) -> float:
    try:
        return float(env[name])
    except (KeyError, ValueError):
        return default_s
