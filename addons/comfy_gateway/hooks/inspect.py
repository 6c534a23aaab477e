"""For people who look: each flow says who it was from and who answered."""

from typing import Final

from mitmproxy import http

from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.hooks import edge

MARKERS: Final = {Source.PRIVATE: ":rocket:", Source.DUTY: ":house:"}
"""What the gateway answered itself has none."""


class InspectHook:
    """Writes the comment and the marker that mitmweb and mitmproxy show.

    Both can be filtered by: ``~comment alice``, ``~comment duty``, ``~marker :rocket:``.
    """

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
        flow.marked = MARKERS.get(flow.metadata.get(edge.SOURCE, Source.GATEWAY), "")
