"""A cloud in memory, with the moods that were seen of the real one."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from comfy_gateway.core.errors import CapacityRefused, CloudRefused, CloudUnauthorized, CloudUnavailable
from comfy_gateway.core.ports import Candidate, CloudPod, PodOrder
from tests.fakes.clock import FakeClock


class Create(Enum):
    """What one create call does."""

    OK = auto()
    CAPACITY = auto()
    REFUSED = auto()
    UNAUTHORIZED = auto()
    LOST = auto()
    """A pod is made, and the answer says nothing."""
    NOTHING = auto()
    """No pod is made, and the answer says nothing."""
    LATE = auto()
    """The answer says nothing, and the pod is made ``late_s`` later."""
    DOUBLE = auto()
    """Two pods are made under the one name."""


@dataclass
class RentedPod:
    """One pod of the account, living or gone."""

    id: str
    name: str
    gpu_type: str | None
    cost_per_hour_usd: float | None
    made_s: float
    ended_s: float | None = None
    is_running: bool = True
    status_text: str = "Rented by User"
    up_s: float = 0.0
    """Age at which its container runs."""
    is_placed: bool | None = True
    created_at: datetime | None = None
    """What the cloud says; it may say nothing."""


class FakeCloud:
    """Implements ``core.ports.Cloud``."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.pods: list[RentedPod] = []
        self.orders: list[PodOrder] = []
        self.terminations: list[str] = []
        """Names of the pods that somebody asked to end, in order."""
        self.creates: deque[Create] = deque()
        """Outcomes of the next create calls; OK when there is none left."""
        self.create_s = 0.0
        """How long a create call takes."""
        self.call_s = 0.0
        """How long every other call takes."""
        self.answer_s = 0.0
        """How long the answer to a create call is on its way, after the pod was made."""
        self.is_cut = False
        """The gateway is being killed: what it sends now reaches nobody, and what it has sent goes on."""
        self.late_s = 20.0
        self.list_lag_s = 0.0
        """Age at which a pod is listed, and found by its id."""
        self.is_list_failing = False
        self.lists_drop: deque[set[str]] = deque()
        """Ids that the next lists leave out."""
        self.is_failing = False
        """No call gets an answer."""
        self.swallowed_terminations = 0
        """So many terminations report success and do nothing."""
        self.prices: dict[str, float | None] = {}
        """By GPU type; 0.5 where nothing is said."""
        self.lists = 0
        self.is_closed = False
        self._late: list[tuple[float, PodOrder]] = []
        self._count = 0

    async def create_pod(self, order: PodOrder) -> str:
        """See ``Create``."""
        is_sent, sent_s = not self.is_cut, self._clock.monotonic()
        try:
            await self._take(self.create_s)
        except asyncio.CancelledError:
            if is_sent and self.is_cut:
                self._late.append((sent_s + self.create_s, order))
            raise
        self.orders.append(order)
        outcome = self.creates.popleft() if self.creates else Create.OK
        match outcome:
            case Create.CAPACITY:
                raise CapacityRefused("no longer any instances available")
            case Create.REFUSED:
                raise CloudRefused("the template does not exist")
            case Create.UNAUTHORIZED:
                raise CloudUnauthorized("the key is refused")
            case Create.NOTHING:
                raise CloudUnavailable("no answer")
            case Create.LATE:
                self._late.append((self._clock.monotonic() + self.late_s, order))
                raise CloudUnavailable("no answer in time")
        made = self.make(order.name, gpu_type=order.candidate.gpu_type)
        if outcome is Create.DOUBLE:
            self.make(order.name, gpu_type=order.candidate.gpu_type)
        if outcome is Create.LOST:
            raise CloudUnavailable("the connection broke off")
        if self.answer_s:
            await self._clock.sleep(self.answer_s)
        return made.id

    async def list_pods(self) -> Sequence[CloudPod]:
        """All that live and are old enough, but for ``lists_drop``."""
        self.lists += 1
        await self._take(self.call_s)
        if self.is_list_failing:
            raise CloudUnavailable("the list is null")
        dropped = self.lists_drop.popleft() if self.lists_drop else set()
        return [self._told(pod) for pod in self.living() if self._is_visible(pod) and pod.id not in dropped]

    async def get_pod(self, pod_id: str) -> CloudPod | None:
        """None for a pod that is gone, and for one that is too young to be seen."""
        await self._take(self.call_s)
        for pod in self.living():
            if pod.id == pod_id and self._is_visible(pod):
                return self._told(pod)
        return None

    async def terminate_pod(self, pod_id: str) -> None:
        """Ends the pod, or says so."""
        await self._take(self.call_s)
        pod = next((pod for pod in self.pods if pod.id == pod_id), None)
        self.terminations.append(pod.name if pod else pod_id)
        if self.swallowed_terminations:
            self.swallowed_terminations -= 1
        elif pod is not None:
            self._end(pod)

    async def price_per_hour_usd(self, candidate: Candidate) -> float | None:
        """See ``prices``."""
        await self._take(self.call_s)
        return self.prices.get(candidate.gpu_type, 0.5)

    async def aclose(self) -> None:
        """Remembers it."""
        self.is_closed = True

    # -- what tests do and ask

    def make(self, name: str, *, gpu_type: str | None = None, cost_per_hour_usd: float = 0.5) -> RentedPod:
        """Put a pod into the account, as anybody could."""
        self._count += 1
        pod = RentedPod(
            f"pod{self._count}", name, gpu_type, cost_per_hour_usd, made_s=self._clock.monotonic()
        )
        self.pods.append(pod)
        return pod

    def exit(self, pod_id: str, why: str = "Exited by Runpod") -> None:
        """The container stops; the pod stays in the account and costs."""
        pod = self.find(pod_id)
        pod.is_running, pod.status_text = False, why

    def vanish(self, pod_id: str) -> None:
        """The pod is gone, and nobody asked for it."""
        self._end(self.find(pod_id))

    def find(self, pod_id: str) -> RentedPod:
        """A pod that is or was. Raises StopIteration for one that never was."""
        return next(pod for pod in self.pods if pod.id == pod_id)

    def under_way(self) -> set[str]:
        """Names of pods that were ordered and are still to appear."""
        return {order.name for _, order in self._late}

    def living(self) -> list[RentedPod]:
        """Pods that cost money at this moment, oldest first."""
        due = [order for at_s, order in self._late if at_s <= self._clock.monotonic()]
        self._late = [late for late in self._late if late[1] not in due]
        for order in due:
            self.make(order.name, gpu_type=order.candidate.gpu_type)
        return [pod for pod in self.pods if pod.ended_s is None]

    def spent_usd(self) -> float:
        """What all pods have cost until now."""
        now_s = self._clock.monotonic()
        return sum(
            (pod.cost_per_hour_usd or 0.0)
            * ((now_s if pod.ended_s is None else pod.ended_s) - pod.made_s)
            / 3600
            for pod in self.pods
        )

    def _end(self, pod: RentedPod) -> None:
        if pod.ended_s is None:
            pod.ended_s = self._clock.monotonic()

    def _is_visible(self, pod: RentedPod) -> bool:
        return self._clock.monotonic() - pod.made_s >= self.list_lag_s

    async def _take(self, seconds: float) -> None:
        if self.is_cut:
            raise asyncio.CancelledError
        if seconds:
            await self._clock.sleep(seconds)
        if self.is_failing:
            raise CloudUnavailable("the cloud does not answer")

    def _told(self, pod: RentedPod) -> CloudPod:
        is_up = bool(pod.is_placed) and self._clock.monotonic() - pod.made_s >= pod.up_s
        return CloudPod(
            id=pod.id,
            name=pod.name,
            is_running=pod.is_running,
            has_machine=pod.is_running and is_up,
            cost_per_hour_usd=pod.cost_per_hour_usd,
            gpu_type=pod.gpu_type,
            status_text=pod.status_text,
            created_at=pod.created_at,
            is_placed=pod.is_placed,
        )
