"""Where a pod's ComfyUI and agent are reached."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from comfy_gateway.core.requests.upstream import Upstream


@dataclass(frozen=True, slots=True)
class PodAddresses:
    """Builds addresses from the templates, whose fields are ``{pod_id}`` and ``{port}``."""

    proxy_template: str
    proxy_port: int
    telemetry_template: str
    telemetry_port: int
    telemetry_path: str
    """Follows the telemetry template, unless the template has a path of its own."""

    def upstream(self, pod_id: str) -> Upstream:
        """The pod's ComfyUI. Raises ValueError where the template makes no usable address."""
        return Upstream.parse(self.proxy_template.format(pod_id=pod_id, port=self.proxy_port))

    def agent_url(self, pod_id: str) -> str:
        """Full address of the agent's telemetry."""
        url = self.telemetry_template.format(pod_id=pod_id, port=self.telemetry_port)
        return url if urlsplit(url).path.strip("/") else url.rstrip("/") + self.telemetry_path
