"""The WebSocket relay."""

from comfy_gateway.site.relay.limits import RelayLimits, RelayStats
from comfy_gateway.site.relay.relay import Relay

__all__ = ["Relay", "RelayLimits", "RelayStats"]
