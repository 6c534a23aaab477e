"""The simulated RunPod as end-to-end tests use it."""

from dataclasses import dataclass

from simulators.runpod import RunPodSimulator, Served
from tests.e2e.world import Duty

GPU = "NVIDIA GeForce RTX 4090"


@dataclass
class Cloud:
    """The simulated RunPod and the settings that point a gateway at it."""

    sim: RunPodSimulator
    served: Served

    def settings(self, duty: Duty, **more: str) -> dict[str, str]:
        """Short times everywhere, so that a life passes in seconds."""
        return {
            "DUTY_POD_URL": duty.url,
            "RUNPOD_API_KEY": "test-key",
            "RUNPOD_API_BASE": self.served.api_base,
            "RUNPOD_IMAGE_NAME": "example/comfyui:1",
            "RUNPOD_GPU_TYPE_ID": GPU,
            "RUNPOD_PROXY_TEMPLATE": self.served.proxy_template,
            "RUNPOD_TELEMETRY_TEMPLATE": self.served.telemetry_url_template,
            "RUNPOD_STARTUP_POLL_S": "0.1",
            "RUNPOD_STARTUP_TIMEOUT_S": "30",
            "RUNPOD_TELEMETRY_POLL_S": "0.3",
            "RUNPOD_TELEMETRY_IDLE_S": "600",
            "RUNPOD_FAILURE_BACKOFF_S": "1",
            "RUNPOD_RECONCILE_S": "1",
        } | more
