"""Puts the fast parts in and takes them out again with the gateway."""

import logging

from mitmproxy import addonmanager, ctx, http, version

from comfy_gateway.hooks.fast_path import dispatch, headers, messages
from comfy_gateway.hooks.patches import TESTED_VERSION, Patches

logger = logging.getLogger(__name__)


class FastPathHook:
    """Does nothing to a flow. Stands first, so that all addons are loaded in the same way."""

    name = "gateway-fast-path"

    def __init__(self) -> None:
        self._patches = Patches()

    def load(self, _loader: addonmanager.Loader) -> None:
        """mitmproxy begins."""
        if version.VERSION != TESTED_VERSION:
            logger.warning(
                "FAST_PATH needs mitmproxy %s; this is %s and runs without it",
                TESTED_VERSION,
                version.VERSION,
            )
            return
        dispatch.install(ctx.master)
        for name, lookup in headers.LOOKUPS.items():
            self._patches.replace(http.Headers, name, lookup)
        for holder, name, value in messages.REPLACED:
            self._patches.replace(holder, name, value)

    def done(self) -> None:
        """mitmproxy ends."""
        self._patches.undo()
        dispatch.uninstall(ctx.master)
