"""For people who look: each flow says who it was from and who answered."""

from mitmproxy import http

from comfy_gateway.core.upstream import Source
from comfy_gateway.hooks import edge


class InspectHook:
    """Writes the comment that mitmweb and mitmproxy show."""

    name = "gateway-inspect"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """By now everything is decided."""
        self._comment(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Also when it went wrong."""
        self._comment(flow)

    def _comment(self, flow: http.HTTPFlow) -> None:
        if edge.is_recorded(flow):
            return
        user = flow.metadata.get(edge.USER, "nobody")
        where = flow.metadata.get(edge.BACKEND) or flow.metadata.get(edge.SOURCE, str(Source.GATEWAY))
        flow.comment = f"{user} -> {where}"
