"""The only package that builds adapters and puts the parts together: ``addons`` what mitmproxy loads, ``gateway`` what
runs beside it, in the order in which the other modules build it, one room of the house each."""

from comfy_gateway.wiring.addons import build_addons

__all__ = ["build_addons"]
