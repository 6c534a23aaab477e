"""Does what mitmproxy does, at less cost for each request: how events reach addons, headers, and messages.

docs/performance.md has what each part brings. Nothing of the gateway depends on it: ``FAST_PATH=0`` leaves mitmproxy as
it is.
"""

from comfy_gateway.hooks.fast_path.hook import FastPathHook

__all__ = ["FastPathHook"]
