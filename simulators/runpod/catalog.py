"""What the simulated cloud rents out: GPU types with prices, and network volumes.

Ids are RunPod's own GPU type ids. Prices in $/h are those of autumn 2026 and move monthly in reality, so
nothing may rely on a figure; the A5000's is a guess.
"""

from dataclasses import dataclass
from typing import Literal

type Stock = Literal["NONE", "LOW", "MEDIUM", "HIGH"]


@dataclass(frozen=True)
class GpuType:
    """A price of None means that this cloud does not offer the type."""

    id: str
    display_name: str
    memory_gb: int
    secure_usd_per_hour: float | None
    community_usd_per_hour: float | None

    def usd_per_hour(self, cloud_type: str) -> float | None:
        """Price of one GPU in SECURE, COMMUNITY or ALL (the cheaper of both), None where there is none."""
        offers = {
            "SECURE": [self.secure_usd_per_hour],
            "COMMUNITY": [self.community_usd_per_hour],
            "ALL": [self.secure_usd_per_hour, self.community_usd_per_hour],
        }[cloud_type]
        return min((price for price in offers if price is not None), default=None)


@dataclass(frozen=True)
class NetworkVolume:
    id: str
    name: str
    size_gb: int
    data_center: str


CPU_POD_USD_PER_HOUR = 0.12
DEFAULT_DATA_CENTER = "EU-RO-1"
DATA_CENTERS = {
    "EU-RO-1": "Romania 1",
    "EU-SE-1": "Sweden 1",
    "US-KS-2": "Kansas 2",
    "US-TX-3": "Texas 3",
}
"""Names by id. All of them have all GPU types."""

GPU_TYPES: tuple[GpuType, ...] = (
    GpuType("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.69, 0.34),
    GpuType("NVIDIA RTX A5000", "RTX A5000", 24, 0.27, 0.16),
    GpuType("NVIDIA L40S", "L40S", 48, 0.86, 0.79),
    GpuType("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 1.79, 1.19),
    GpuType("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 1.79, 1.39),
    GpuType("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.89, 1.99),
    GpuType("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 3.99, 2.69),
)
