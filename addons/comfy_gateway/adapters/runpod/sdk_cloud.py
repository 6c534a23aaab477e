"""``core.ports.Cloud`` over the ``runpod`` SDK, 1.10 to 1.12, whose pod functions are the same."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, ItemsView, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comfy_gateway.adapters.lane import Lane, LaneClosed
from comfy_gateway.adapters.runpod.answers import amount, gpu_price_usd, new_pod_id, pod_of, pods_of
from comfy_gateway.adapters.runpod.binding import SdkBinding
from comfy_gateway.adapters.runpod.order import RunPodOrder
from comfy_gateway.adapters.runpod.pasted import checked, checked_env
from comfy_gateway.adapters.runpod.refusals import meaning_of
from comfy_gateway.adapters.runpod.retirement import UNREADABLE, Retirement, retired
from comfy_gateway.core.errors import CloudError, CloudRefused, CloudUnavailable
from comfy_gateway.core.ports import Candidate, CloudPod, PodOrder

CREATING_LANE_WIDTH: Final = 8
ASKING_LANE_WIDTH: Final = 8
ENDING_LANE_WIDTH: Final = 16
"""Creates take a minute and more, and any call may hang: neither may keep a pod alive that has to end."""
PRICE_AGE_S: Final = 3600.0
UNKNOWN_PRICE_AGE_S: Final = 60.0


class RunPodSdkCloud:
    """One RunPod account. There can be one key and one address per process (see ``binding``).

    Each call waits ``request_timeout_s`` and then raises CloudUnavailable; the SDK's thread goes on until its
    socket lets go. A create that nobody waits for any more is stopped before its mutation where that is still
    possible. Raises ValueError for a key that cannot be one.
    """

    def __init__(
        self,
        *,
        api_key: str,
        api_base: str,
        order_defaults: RunPodOrder,
        request_timeout_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ValueError("the RunPod API key is empty or holds characters that no key has")
        self._api_key = api_key
        self._retirement = Retirement(api_base.rstrip("/"), api_key, monotonic)
        self._binding = SdkBinding(api_key=api_key, api_base=api_base.rstrip("/"))
        self._defaults = order_defaults
        self._timeout_s = request_timeout_s
        self._monotonic = monotonic
        self._creating_lane = Lane("runpod creating", CREATING_LANE_WIDTH)
        self._asking_lane = Lane("runpod asking", ASKING_LANE_WIDTH)
        self._ending_lane = Lane("runpod ending", ENDING_LANE_WIDTH)
        self._prices: dict[tuple[str, str], _Price] = {}
        self._asking_prices = asyncio.Lock()
        """Users who burst together ask for one price: one of them asks RunPod."""

    async def load_sdk(self) -> None:
        """Import the SDK now, so that the first call need not. Raises ImportError where it is missing."""
        await asyncio.wrap_future(self._asking_lane.submit(self._binding.sdk))

    async def create_pod(self, order: PodOrder) -> str:
        """Rent a pod; returns its id. Two or three requests to RunPod, the last of them makes the pod.

        A name, id or env value that cannot be pasted into a query is refused before anything is sent, by
        CloudRefused naming it. Raises further what ``core.ports.Cloud`` says.
        """
        try:
            name = checked("pod name", order.name)
            env = _EnvInDemand(checked_env(order.env))
            keywords = self._defaults.keywords_for(order.candidate)
        except ValueError as fault:
            raise CloudRefused(str(fault)) from None
        try:
            return await self._call(
                self._creating_lane,
                lambda sdk: new_pod_id(sdk.create_pod(name, env=env, **keywords)),
                is_create=True,
                secrets=order.env.values(),
            )
        finally:
            env.give_up()

    async def list_pods(self) -> Sequence[CloudPod]:
        """All pods of the account, in one request."""
        return await self._call(self._asking_lane, lambda sdk: pods_of(sdk.get_pods()))

    async def get_pod(self, pod_id: str) -> CloudPod | None:
        """One pod, or None when RunPod says that there is none. Raises CloudRefused for what is no id."""
        known_id = self._pod_id(pod_id)

        def ask(sdk: Any) -> CloudPod | None:
            answer = sdk.get_pod(known_id)
            return None if answer is None else pod_of(answer)

        return await self._call(self._asking_lane, ask)

    async def terminate_pod(self, pod_id: str) -> None:
        """Ask for the end of a pod. Raises CloudRefused for what is no id.

        A return proves nothing: the SDK takes a 429 or 500 whose JSON has no ``errors`` for success.
        """
        known_id = self._pod_id(pod_id)
        await self._call(self._ending_lane, lambda sdk: _end_pod(sdk, known_id))

    async def price_per_hour_usd(self, candidate: Candidate) -> float | None:
        """What one pod at this candidate would cost by RunPod's price list, at most an hour old.

        None when the list has no such GPU or no price. With the cloud type ALL it is the dearer of the two.
        """
        try:
            gpu_type = checked("GPU type id", candidate.gpu_type)
            cloud_type = checked("cloud type", self._defaults.cloud_type_of(candidate))
        except ValueError as fault:
            raise CloudRefused(str(fault)) from None
        try:
            async with asyncio.timeout(self._timeout_s), self._asking_prices:
                price = await self._gpu_price(gpu_type, cloud_type)
        except TimeoutError:
            raise self._late() from None
        return None if price is None else price * self._defaults.gpus_per_pod

    async def balance_usd(self) -> float | None:
        """What is left on the account, None where RunPod does not say. Raises as ``get_pod``."""
        return await self._call(self._asking_lane, _ask_balance)

    async def aclose(self) -> None:
        """Let go of the threads; calls in flight are not waited for."""
        self._creating_lane.close()
        self._asking_lane.close()
        self._ending_lane.close()

    async def _call[T](
        self,
        lane: Lane,
        work: Callable[[Any], T],
        *,
        is_create: bool = False,
        secrets: Collection[str] = (),
    ) -> T:
        """Run ``work`` with the SDK in a thread of the lane and wait for it, but not for ever."""
        try:
            future = lane.submit(lambda: self._in_thread(work, is_create, (self._api_key, *secrets)))
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s)
        except LaneClosed:
            raise CloudUnavailable("the connection to RunPod is closed") from None
        except TimeoutError:
            raise self._late() from None

    def _in_thread[T](self, work: Callable[[Any], T], is_create: bool, secrets: Collection[str]) -> T:
        try:
            sdk = self._binding.sdk()
        except ImportError:
            raise CloudUnavailable("the package runpod cannot be imported") from None
        try:
            return work(sdk)
        except CloudError:
            raise
        except Exception as error:  # noqa: BLE001 - the SDK lets through whatever requests, json and it itself raise
            meaning = meaning_of(error, sdk=sdk, is_create=is_create, secrets=secrets)
            if isinstance(error, UNREADABLE) and self._retirement.is_told(sdk):
                meaning = retired()
        # Raised out here, so that no __context__ leads back to the query and the Authorization header.
        raise meaning

    async def _gpu_price(self, gpu_type: str, cloud_type: str) -> float | None:
        known = self._prices.get((gpu_type, cloud_type))
        if known is not None and self._monotonic() < known.stale_at:
            return known.usd
        usd = await self._call(self._asking_lane, lambda sdk: _ask_price(sdk, gpu_type, cloud_type))
        age_s = UNKNOWN_PRICE_AGE_S if usd is None else PRICE_AGE_S
        self._prices[gpu_type, cloud_type] = _Price(usd, self._monotonic() + age_s)
        return usd

    def _late(self) -> CloudUnavailable:
        return CloudUnavailable(f"RunPod gave no answer within {self._timeout_s:g} s")

    @staticmethod
    def _pod_id(pod_id: str) -> str:
        try:
            return checked("pod id", pod_id)
        except ValueError as fault:
            raise CloudRefused(str(fault)) from None


@dataclass(frozen=True, slots=True)
class _Price:
    usd: float | None
    stale_at: float


def _end_pod(sdk: Any, pod_id: str) -> None:
    """Ending a pod that RunPod does not know (any more) is no failure."""
    try:
        sdk.terminate_pod(pod_id)
    except sdk.error.QueryError as error:
        if "not found" not in str(error.message).lower():
            raise


def _ask_balance(sdk: Any) -> float | None:
    """The SDK has no function for it, but carries any query."""
    answer = sdk.api.graphql.run_graphql_query("query { myself { clientBalance } }")
    return amount(answer["data"]["myself"].get("clientBalance"))


def _ask_price(sdk: Any, gpu_type: str, cloud_type: str) -> float | None:
    try:
        answer = sdk.get_gpu(gpu_type)
    except ValueError as error:
        if type(error) is not ValueError:  # JSON errors are ValueErrors, too
            raise
        return None
    return gpu_price_usd(answer, cloud_type)


class _EnvInDemand(dict[str, str]):
    """The env of one create call, for as long as somebody waits for the pod.

    The SDK asks questions first and reads the env once, when it writes the mutation. A thread that nobody
    waits for any more fails there, instead of renting a pod after the gateway has drawn its conclusions.
    """

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(env)
        self._is_given_up = threading.Event()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._is_given_up.set()

    def items(self) -> ItemsView[str, str]:  # type: ignore[override]  # dict_items has no public type
        if self._is_given_up.is_set():
            raise TimeoutError("nobody waits for this pod any more")
        return super().items()
