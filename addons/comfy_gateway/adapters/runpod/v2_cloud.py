"""``core.ports.Cloud`` over RunPod's REST API v2."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from comfy_gateway.adapters.runpod.order import RunPodOrder
from comfy_gateway.adapters.runpod.pasted import checked
from comfy_gateway.adapters.runpod.v2_answers import GpuOffer, new_pod_id, offer_of, pod_of, pods_of
from comfy_gateway.adapters.runpod.v2_calls import Reply, RestCalls
from comfy_gateway.adapters.runpod.v2_order import V2Order
from comfy_gateway.adapters.runpod.v2_refusals import meaning_of
from comfy_gateway.core.errors import CapacityRefused, CloudRefused, CloudUnavailable
from comfy_gateway.core.ports import Candidate, CloudPod, PodOrder

CREATING_WIDTH: Final = 8
ASKING_WIDTH: Final = 8
ENDING_WIDTH: Final = 16
"""So many calls at once. Any call may hang: none may keep a pod alive that has to end."""
PRICE_AGE_S: Final = 3600.0
UNKNOWN_PRICE_AGE_S: Final = 60.0
STOCK_AGE_S: Final = 10.0
"""Users who burst together are told of one look at the stock."""


class RunPodV2Cloud:
    """One RunPod account.

    Each call waits ``request_timeout_s`` and then raises CloudUnavailable. Raises ValueError for a key that cannot be
    one, and for what every pod is ordered with where v2 cannot be told that.
    """

    def __init__(
        self,
        *,
        api_key: str,
        api_base: str,
        order_defaults: RunPodOrder,
        request_timeout_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ValueError("the RunPod API key is empty or holds characters that no key has")
        self._api_key = api_key
        self._order = V2Order(order_defaults)
        self._timeout_s = request_timeout_s
        self._monotonic = monotonic
        self._calls = RestCalls(
            base=api_base.rstrip("/"),
            api_key=api_key,
            # Later than ours, which says what was waited for.
            timeout_s=request_timeout_s + 1,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._creating_turns = asyncio.Semaphore(CREATING_WIDTH)
        self._turns = asyncio.Semaphore(ASKING_WIDTH)
        self._ending_turns = asyncio.Semaphore(ENDING_WIDTH)
        self._offers: dict[tuple[str, str], _Known] = {}
        self._asking_offers = asyncio.Lock()

    async def create_pod(self, order: PodOrder) -> str:
        """Rent a pod; returns its id. The stock is looked up first, and a GPU that is sold out is not asked for.

        With the cloud type ALL the secure cloud is asked first, and the other one when it certainly has none.
        A name, id or env name that cannot be one is refused before anything is sent. Raises further what
        ``core.ports.Cloud`` says.
        """
        try:
            data_center = self._order.data_center_of(order.candidate)
            bodies = {
                cloud: self._order.body(order.name, order.env, order.candidate, cloud)
                for cloud in self._order.clouds_of(order.candidate)
            }
        except ValueError as fault:
            raise CloudRefused(str(fault)) from None
        async with self._in_time() as until_s:
            refusals: list[CapacityRefused] = []
            for cloud, body in bodies.items():
                try:
                    await self._refuse_sold_out(order.candidate.gpu_type, cloud, data_center, until_s)
                    return await self._create(body, order.env.values(), until_s)
                except CapacityRefused as refused:
                    refusals.append(refused)
        raise refusals[-1]

    async def list_pods(self) -> Sequence[CloudPod]:
        """All pods of the account but members of clusters, in one request."""
        async with self._in_time() as until_s:
            reply = await self._calls.ask("GET", "/v2/pods", turns=self._turns, until_s=until_s)
        if not reply.is_success:
            raise self._meaning(reply)
        return pods_of(reply.document)

    async def get_pod(self, pod_id: str) -> CloudPod | None:
        """One pod, or None when RunPod says that there is none. Raises CloudRefused for what is no id."""
        async with self._in_time() as until_s:
            reply = await self._calls.ask("GET", _pod_path(pod_id), turns=self._turns, until_s=until_s)
        if _says_not_found(reply):
            return None
        if not reply.is_success:
            raise self._meaning(reply)
        pod = pod_of(reply.document)
        if pod is not None and pod.id != pod_id:
            raise CloudUnavailable("RunPod answered with another pod than the one that was asked for")
        return pod

    async def terminate_pod(self, pod_id: str) -> None:
        """Ask for the end of a pod; one that RunPod does not know is no failure. Raises CloudRefused for what is no id,
        and for a pod that belongs to a cluster.
        """
        async with self._in_time() as until_s:
            reply = await self._calls.ask(
                "DELETE", _pod_path(pod_id), turns=self._ending_turns, until_s=until_s
            )
        if reply.status != 204 and not _says_not_found(reply):
            raise self._meaning(reply)

    async def price_per_hour_usd(self, candidate: Candidate) -> float | None:
        """What one pod at this candidate would cost by RunPod's catalogue, at most an hour old.

        None when it has no such GPU or no price. With the cloud type ALL it is the dearer of the two.
        """
        try:
            gpu_type = checked("GPU type id", candidate.gpu_type)
            clouds = self._order.clouds_of(candidate)
        except ValueError as fault:
            raise CloudRefused(str(fault)) from None
        async with self._in_time() as until_s:
            offer = await self._offer(gpu_type, clouds[0], PRICE_AGE_S, until_s)
        prices = [] if offer is None else [offer.prices_usd[at] for at in clouds if at in offer.prices_usd]
        return max(prices) * self._order.gpus_per_pod if prices else None

    async def balance_usd(self) -> float | None:
        """None: v2 does not tell what is left on the account."""
        return None

    async def aclose(self) -> None:
        """Let go of the connections; calls in flight are broken off."""
        await self._calls.aclose()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[float]:
        """For as long as one call may take; yields when that is over."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._calls.refuse_closed()
                yield self._monotonic() + self._timeout_s
        except TimeoutError:
            raise CloudUnavailable(f"RunPod gave no answer within {self._timeout_s:g} s") from None

    async def _create(self, body: Mapping[str, Any], secrets: Collection[str], until_s: float) -> str:
        """The only call that is never sent twice: whatever its answer, the pod may have been made."""
        reply = await self._calls.ask(
            "POST", "/v2/pods", body=body, turns=self._creating_turns, until_s=until_s
        )
        if not reply.is_success:
            raise self._meaning(reply, is_create=True, secrets=secrets)
        return new_pod_id(reply.document)

    async def _refuse_sold_out(
        self, gpu_type: str, cloud: str, data_center: str | None, until_s: float
    ) -> None:
        try:
            offer = await self._offer(gpu_type, cloud, STOCK_AGE_S, until_s)
        except CloudUnavailable as error:
            # Nothing was ordered yet, and that is worth saying: what is unknown would be looked for.
            raise CloudRefused(f"RunPod's stock cannot be seen: {error}") from None
        if offer is None:
            raise CloudRefused("RunPod knows no GPU type of that id")
        if offer.is_sold_out(data_center):
            where = cloud if data_center is None else f"{cloud}, {data_center}"
            raise CapacityRefused(f"RunPod has none in stock ({where})")

    async def _offer(self, gpu_type: str, cloud: str, age_s: float, until_s: float) -> GpuOffer | None:
        """What the catalogue says, at most so old; None for a GPU type that it does not know."""
        async with self._asking_offers:
            known = self._offers.get((gpu_type, cloud))
            if known is not None and self._monotonic() - known.told_s < min(age_s, known.good_s):
                return known.offer
            offer = await self._ask_offer(gpu_type, cloud, until_s)
            has_price = offer is not None and cloud in offer.prices_usd
            self._offers[gpu_type, cloud] = _Known(
                offer, self._monotonic(), PRICE_AGE_S if has_price else UNKNOWN_PRICE_AGE_S
            )
            return offer

    async def _ask_offer(self, gpu_type: str, cloud: str, until_s: float) -> GpuOffer | None:
        query = {
            "include": "AVAILABILITY",
            "product": "POD",
            "count": str(self._order.gpus_per_pod),
            "cloud": cloud,
        }
        if versions := self._order.cuda_versions:
            query["cudaVersions"] = ",".join(versions)
        path = f"/v2/catalog/gpus/{quote(gpu_type, safe='')}"
        reply = await self._calls.ask("GET", path, query=query, turns=self._turns, until_s=until_s)
        if _says_not_found(reply):
            return None
        if not reply.is_success:
            raise self._meaning(reply)
        return offer_of(reply.document)

    def _meaning(self, reply: Reply, *, is_create: bool = False, secrets: Collection[str] = ()) -> Exception:
        return meaning_of(reply, is_create=is_create, secrets=(self._api_key, *secrets))


@dataclass(frozen=True, slots=True)
class _Known:
    offer: GpuOffer | None
    told_s: float
    good_s: float


def _pod_path(pod_id: str) -> str:
    try:
        return f"/v2/pods/{checked('pod id', pod_id)}"
    except ValueError as fault:
        raise CloudRefused(str(fault)) from None


def _says_not_found(reply: Reply) -> bool:
    """Only in RunPod's own words: a page of whatever stands in between must not mean that a pod is gone."""
    return reply.status == 404 and reply.detail is not None
