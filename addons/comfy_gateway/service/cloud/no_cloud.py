"""What stands in for the cloud where no credentials are given: the gateway is a plain front then."""

from collections.abc import Sequence

from comfy_gateway.core.errors import CloudRefused
from comfy_gateway.core.ports import Candidate, CloudPod, PodOrder


class NoCloud:
    """Implements ``core.ports.Cloud`` with nothing behind it."""

    async def create_pod(self, order: PodOrder) -> str:
        """Raises CloudRefused."""
        raise CloudRefused(f"no RunPod credentials are set; {order.name} was not ordered")

    async def list_pods(self) -> Sequence[CloudPod]:
        """No pods."""
        return ()

    async def get_pod(self, pod_id: str) -> CloudPod | None:
        """Raises CloudRefused: whether the pod exists cannot be told."""
        raise CloudRefused(f"no RunPod credentials are set; {pod_id} cannot be looked up")

    async def terminate_pod(self, pod_id: str) -> None:
        """Raises CloudRefused."""
        raise CloudRefused(f"no RunPod credentials are set; {pod_id} cannot be ended")

    async def price_per_hour_usd(self, candidate: Candidate) -> float | None:
        """No price for anything."""
        return None

    async def aclose(self) -> None:
        """Nothing to close."""
