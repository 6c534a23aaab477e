"""The cloud, with every call to it counted by how it went."""

from collections.abc import Awaitable, Sequence

from comfy_gateway.core.errors import CapacityRefused, CloudRefused, CloudUnauthorized, CloudUnavailable
from comfy_gateway.core.ports import Candidate, Cloud, CloudPod, PodOrder
from comfy_gateway.service.meters import CloudCall, CloudOutcome, Meters


class CountedCloud:
    """Implements ``core.ports.Cloud`` by another one."""

    def __init__(self, cloud: Cloud, meters: Meters) -> None:
        self._cloud = cloud
        self._meters = meters

    async def create_pod(self, order: PodOrder) -> str:
        """As the cloud."""
        return await self._count(CloudCall.CREATE, self._cloud.create_pod(order))

    async def list_pods(self) -> Sequence[CloudPod]:
        """As the cloud."""
        return await self._count(CloudCall.LIST, self._cloud.list_pods())

    async def get_pod(self, pod_id: str) -> CloudPod | None:
        """As the cloud."""
        return await self._count(CloudCall.GET, self._cloud.get_pod(pod_id))

    async def terminate_pod(self, pod_id: str) -> None:
        """As the cloud."""
        await self._count(CloudCall.TERMINATE, self._cloud.terminate_pod(pod_id))

    async def price_per_hour_usd(self, candidate: Candidate) -> float | None:
        """As the cloud."""
        return await self._count(CloudCall.PRICE, self._cloud.price_per_hour_usd(candidate))

    async def aclose(self) -> None:
        """As the cloud."""
        await self._cloud.aclose()

    async def _count[Answer](self, call: CloudCall, answer: Awaitable[Answer]) -> Answer:
        outcome = CloudOutcome.BROKEN
        try:
            found = await answer
            outcome = CloudOutcome.OK
        except CapacityRefused:
            outcome = CloudOutcome.NO_CAPACITY
            raise
        except CloudRefused:
            outcome = CloudOutcome.REFUSED
            raise
        except CloudUnauthorized:
            outcome = CloudOutcome.UNAUTHORIZED
            raise
        except CloudUnavailable:
            outcome = CloudOutcome.UNAVAILABLE
            raise
        finally:
            self._meters.cloud_called(call, outcome)
        return found
