"""One pod on the real account: bought, booted, looked at, and ended in every case. `doctor --launch`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from comfy_gateway.adapters.runpod import RunPodSdkCloud, RunPodV2Cloud
from comfy_gateway.core.errors import (
    AgentUnavailable,
    CapacityRefused,
    CloudError,
    CloudRefused,
    CloudUnavailable,
)
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.pods.podname import PodNames, new_attempt
from comfy_gateway.core.ports import Agent, Candidate, Clock, CloudPod, PodOrder, Prober
from comfy_gateway.core.requests.upstream import front_door_headers
from comfy_gateway.doctor.findings import Finding, fail, ok, skip, warn
from comfy_gateway.service.life.endings import Endings
from comfy_gateway.service.money.alarms import log_alarm
from comfy_gateway.settings import Settings
from comfy_gateway.wiring.from_settings import rules_of

NOBODY = UserId(IdKind.NAMED, "doctor")


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate, and what its pod would cost."""

    candidate: Candidate
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds.

    lease_s       lease of the pod's agent, after which it has to end the pod by itself
    own_end_s     how long that is waited for, the lease included
    look_s        between two questions to the cloud
    lost_looks    truthful lists without the pod after a create call of unknown outcome
    end_within_s  after which even the trial gives up, and says so
    """

    lease_s: int = 45
    own_end_s: float = 180.0
    look_s: float = 10.0
    lost_looks: int = 4
    end_within_s: float = 900.0


def most_usd(offers: Sequence[Offer], settings: Settings, patience: Patience) -> float:
    """What a trial can cost when all goes slowly and nothing goes wrong at its end."""
    longest_s = settings.boot.most_s + settings.boot.agent_wait_s + patience.own_end_s + 60
    return max(offer.usd_per_hour for offer in offers) * longest_s / 3600


class _Failed(Exception):
    """There is nothing more to look at. The text is for the report."""


class Trial:
    """Call ``run`` once and ``end`` in every case afterwards, also when ``run`` was cancelled."""

    def __init__(
        self,
        settings: Settings,
        *,
        cloud: RunPodSdkCloud | RunPodV2Cloud,
        keys: Keys,
        prober: Prober,
        agent: Agent,
        http: aiohttp.ClientSession,
        clock: Clock,
        tell: Callable[[Finding], None],
        patience: Patience,
    ) -> None:
        self._settings = settings
        self._cloud = cloud
        self._keys = keys
        self._prober = prober
        self._agent = agent
        self._http = http
        self._clock = clock
        self._tell = tell
        self._patience = patience
        self._names = PodNames(settings.runpod.pod_name_tag, keys)
        self._name = self._names.make(NOBODY, new_attempt(clock.now()))
        self._is_ordered = False
        self._pod_id: str | None = None
        self._usd_per_hour = 0.0
        self._ordered_s = 0.0

    async def run(self, offers: Sequence[Offer]) -> None:
        """Buy, boot and look. What is found is told; nothing is raised for it."""
        try:
            await self._buy(offers)
            assert self._pod_id is not None
            sample = await self._boot(self._pod_id)
            await self._look_at_door(self._pod_id)
            await self._let_it_end_itself(self._pod_id, sample)
        except _Failed as failed:
            self._tell(fail("trial", str(failed)))

    async def end(self) -> None:
        """Return when RunPod confirms that nothing of the trial lives, or after ``end_within_s`` with a failure that
        names the pod.
        """
        if not self._is_ordered:
            self._tell(ok("end", "nothing was bought"))
            return
        began_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._patience.end_within_s):
                await self._end_all()
        except TimeoutError:
            pod = f"{self._name} ({self._pod_id or 'id unknown'})"
            self._tell(fail("end", f"RunPod does not confirm that pod {pod} is gone: end it by hand"))
            return
        now_s = self._clock.monotonic()
        lived_s = now_s - self._ordered_s
        self._tell(
            ok("end", f"RunPod confirms that the pod is gone, {now_s - began_s:.0f} s after it was asked")
        )
        if self._pod_id is None:
            self._tell(ok("cost", "no pod was made"))
            return
        usd = lived_s * self._usd_per_hour / 3600
        self._tell(
            ok(
                "cost",
                f"${usd:.4f} at most: {lived_s:.0f} s at ${self._usd_per_hour:.2f} an hour, without storage",
            )
        )

    async def tell_balance(self, when: str) -> None:
        """Where RunPod tells it."""
        subject = f"balance {when}"
        try:
            usd = await self._cloud.balance_usd()
        except CloudError as error:
            self._tell(warn(subject, str(error)))
            return
        self._tell(
            skip(subject, "this API does not tell it (RUNPOD_API=v2)")
            if usd is None
            else ok(subject, f"${usd:.2f}")
        )

    async def _buy(self, offers: Sequence[Offer]) -> None:
        refusals = []
        for offer in offers:
            self._ordered_s = self._clock.monotonic()
            self._is_ordered = True
            self._usd_per_hour = offer.usd_per_hour
            try:
                self._pod_id = await self._cloud.create_pod(self._order(offer.candidate))
            except (CapacityRefused, CloudRefused) as error:
                self._is_ordered = False
                refusals.append(f"{offer.candidate.gpu_type}: {error}")
                continue
            except CloudUnavailable as error:
                self._tell(
                    warn("bought", f"the outcome is unknown, looking for the pod by its name ({error})")
                )
                found = await self._looked_for()
                if not found:
                    raise _Failed(f"no pod of the name {self._name} has appeared") from None
                self._pod_id = found[0].id
            except CloudError as error:
                self._is_ordered = False
                raise _Failed(str(error)) from None
            self._tell(
                ok(
                    "bought",
                    f"{offer.candidate.gpu_type} in {offer.candidate.cloud_type}, pod {self._pod_id} ({self._name}), "
                    f"after {self._since_order()}",
                )
            )
            return
        raise _Failed("; ".join(refusals) or "no GPU type is configured")

    def _order(self, candidate: Candidate) -> PodOrder:
        boot_s = max(self._settings.boot.timeout_s, self._settings.boot.most_s)
        env = {
            **rules_of(self._settings).pod_env,
            "AUTH_TOKEN": self._keys.agent_token(self._name),
            "GATEWAY_POD_TOKEN": self._keys.pod_token(self._name),
            # The pod must end itself soon after the last look, and not long after a doctor that was killed.
            "AGENT_LEASE_S": str(self._patience.lease_s),
            "AGENT_BOOT_GRACE_S": str(int(boot_s) + self._patience.lease_s),
        }
        return PodOrder(self._name, candidate, env)

    async def _looked_for(self) -> list[CloudPod]:
        """Pods of our name. Only after several truthful lists there is none: the list lags."""
        looks, wait_s = 0, 1.0
        while True:
            try:
                found = [pod for pod in await self._cloud.list_pods() if pod.name == self._name]
            except CloudError as error:
                self._tell(warn("list of pods", str(error)))
            else:
                looks += 1
                if found or looks >= self._patience.lost_looks:
                    return found
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, self._patience.look_s)

    async def _boot(self, pod_id: str) -> Sample | None:
        """Wait for the machine, ComfyUI and the agent. The first sample, None where the agent says nothing."""
        boot = self._settings.boot
        addresses = self._settings.pod_addresses
        upstream, agent_url = addresses.upstream(pod_id), addresses.agent_url(pod_id)
        token, agent_token = self._keys.pod_token(self._name), self._keys.agent_token(self._name)
        began_s = self._clock.monotonic()
        has_machine, comfy_s, reason, asked_s = False, None, "", float("-inf")
        sample: Sample | None = None
        while True:
            now_s = self._clock.monotonic()
            if now_s - asked_s >= self._patience.look_s:
                asked_s = now_s
                has_machine = await self._has_machine(pod_id, had_one=has_machine)
            if comfy_s is None:
                health = await self._prober.probe(upstream, token=token)
                reason = health.reason
                if health.is_healthy:
                    comfy_s = self._clock.monotonic()
                    self._tell(ok("ComfyUI", f"answers through the front door after {self._since_order()}"))
            try:
                heard = await self._agent.sample(agent_url, token=agent_token)
            except AgentUnavailable as error:
                silence = str(error)
            else:
                if sample is None:
                    version = await self._agent.version(agent_url, token=agent_token) or "of unknown version"
                    self._tell(ok("agent", f"{version}, {_told(heard)}, after {self._since_order()}"))
                sample = heard
            now_s = self._clock.monotonic()
            if comfy_s is not None and sample is not None:
                return sample
            if comfy_s is not None and now_s - comfy_s > boot.agent_wait_s:
                self._tell(warn("agent", f"{silence}; such a pod is used without telemetry"))
                return None
            is_syncing = sample is not None and sample.synced_bytes is not None
            if comfy_s is None and now_s - began_s > (boot.most_s if is_syncing else boot.timeout_s):
                raise _Failed(f"ComfyUI does not answer after {self._since_order()}: {reason}")
            await self._clock.sleep(boot.poll_s)

    async def _has_machine(self, pod_id: str, *, had_one: bool) -> bool:
        """Told once. Raises _Failed for a pod that does not run any more."""
        try:
            pod = await self._cloud.get_pod(pod_id)
        except CloudError as error:
            self._tell(warn("machine", str(error)))
            return had_one
        if pod is None:
            return had_one
        if not pod.is_running:
            raise _Failed(f"the pod does not run any more: {pod.status_text or 'RunPod does not say why'}")
        if pod.cost_per_hour_usd is not None:
            self._usd_per_hour = pod.cost_per_hour_usd
        if pod.has_machine and not had_one:
            self._tell(
                ok(
                    "machine",
                    f"the container runs after {self._since_order()}, ${self._usd_per_hour:.2f} an hour",
                )
            )
        return had_one or pod.has_machine

    async def _look_at_door(self, pod_id: str) -> None:
        upstream = self._settings.pod_addresses.upstream(pod_id)
        without = await self._prober.probe(upstream)
        if without.status in (401, 403):
            self._tell(ok("front door", "refuses requests without the gateway's token"))
        elif without.is_healthy and self._settings.pod.allow_open:
            self._tell(warn("front door", "answers everybody (POD_ALLOW_OPEN=1)"))
        elif without.is_healthy:
            self._tell(fail("front door", "answers everybody: the gateway will not use such a pod"))
        else:
            self._tell(warn("front door", f"without the token: {without.reason}"))
        headers = front_door_headers(self._keys.pod_token(self._name))
        try:
            async with (
                asyncio.timeout(self._settings.health.timeout_s),
                self._http.ws_connect(upstream.url("/ws"), headers=headers) as socket,
            ):
                first = await socket.receive()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._tell(fail("events", f"no socket through the front door ({type(error).__name__})"))
            return
        if first.type is aiohttp.WSMsgType.TEXT:
            self._tell(ok("events", "a socket through the front door hears ComfyUI"))
        else:
            self._tell(fail("events", f"the socket through the front door said {first.type.name}"))

    async def _let_it_end_itself(self, pod_id: str, sample: Sample | None) -> None:
        """Without renewals the agent must end its pod, with the key that RunPod gave to the pod."""
        subject = "the pod's own end"
        if sample is None:
            self._tell(skip(subject, "that is its agent's work, which does not answer"))
            return
        began_s = self._clock.monotonic()
        while (waited_s := self._clock.monotonic() - began_s) < self._patience.own_end_s:
            await self._clock.sleep(min(self._patience.look_s, self._patience.own_end_s - waited_s))
            try:
                pod = await self._cloud.get_pod(pod_id)
            except CloudError:
                continue
            waited_s = self._clock.monotonic() - began_s
            if pod is None:
                self._tell(ok(subject, f"by its own key it is gone {waited_s:.0f} s after the last renewal"))
                return
            if not pod.is_running:
                self._tell(
                    warn(
                        subject, f"it stopped after {waited_s:.0f} s and was not ended: its disk still costs"
                    )
                )
                return
        self._tell(
            warn(
                subject,
                f"it lives {self._patience.own_end_s:.0f} s after the last renewal: its own key may not end it, or the "
                "image has another agent. Only the gateway ends pods then (docs/agent.md)",
            )
        )

    async def _end_all(self) -> None:
        endings = Endings(self._cloud, self._names, self._clock, log_alarm)
        if self._pod_id is not None:
            await endings.end(self._pod_id, self._name)
        # Doubles, and what a create call has made whose answer was not heard.
        for pod in await self._doubles():
            self._pod_id = self._pod_id or pod.id
            await endings.end(pod.id, self._name)

    async def _doubles(self) -> list[CloudPod]:
        if self._pod_id is None:
            return await self._looked_for()
        while True:
            try:
                listed = await self._cloud.list_pods()
            except CloudError as error:
                self._tell(warn("list of pods", str(error)))
                await self._clock.sleep(self._patience.look_s)
            else:
                return [pod for pod in listed if pod.name == self._name]

    def _since_order(self) -> str:
        return f"{self._clock.monotonic() - self._ordered_s:.0f} s"


def _told(sample: Sample) -> str:
    if sample.utilization_percent is None:
        return "reads no GPU"
    return f"GPU at {sample.utilization_percent:.0f} %"
