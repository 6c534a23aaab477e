"""Calls the handlers of an event from a list that is made once, where mitmproxy looks for them each time anew.

mitmproxy 12.2.3 walks its 35 addons for each of the ten or so events of a request, with a generator and a context
manager for each addon: half of what a small request costs. The list leaves out addons that their options have switched
off, and is made anew whenever an addon comes or goes or an option changes. Order, the containment of exceptions and
``AddonHalt`` are as in ``AddonManager``.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

from mitmproxy import addonmanager, exceptions, flow, hooks
from mitmproxy.addonmanager import AddonManager
from mitmproxy.master import Master
from mitmproxy.tools.dump import DumpMaster

IDLE_WITHOUT: Final[dict[str, tuple[str, ...]]] = {
    "anticache": ("anticache",),
    "anticomp": ("anticomp",),
    "block": ("block_global", "block_private"),
    "blocklist": ("block_list",),
    "dumper": ("flow_detail",),
    "maplocal": ("map_local",),
    "mapremote": ("map_remote",),
    "modifybody": ("modify_body",),
    "modifyheaders": ("modify_headers",),
    "onboarding": ("onboarding",),
    "proxyauth": ("proxyauth",),
    "save": ("save_stream_file",),
    "savehar": ("hardump",),
    "serverplayback": ("server_replay",),
    "stickyauth": ("stickyauth",),
    "stickycookie": ("stickycookie",),
    "upstreamauth": ("upstream_auth",),
}
"""Addons of mitmdump whose handlers of flows and connections do nothing unless one of these options is set.

mitmproxy and mitmweb have commands that wake some of them without an option: there none is left out.
"""
_ANY_UPDATE: Final = hooks.UpdateHook([])

type Handlers = tuple[tuple[Callable[..., object], ...], ...]
"""For each addon of the chain its own handlers and its children's; an exception ends its group, not the event."""


class CachedAddonManager(AddonManager):
    """Takes the place of the class of a living ``AddonManager``."""

    handlers: dict[str, Handlers]

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        """An event of a connection or flow, and that the flow may have changed."""
        message = event.args()[0]
        await self.trigger_event(event)
        if isinstance(message, flow.Flow) and self._handlers_of(_ANY_UPDATE):
            await self.trigger_event(hooks.UpdateHook([message]))

    async def trigger_event(self, event: hooks.Hook) -> None:
        """Call every handler in turn."""
        groups = self._handlers_of(event)
        if not groups:
            return
        arguments = event.args()
        for group in groups:
            try:
                for handler in group:
                    answer = handler(*arguments)
                    if answer is not None and inspect.isawaitable(answer):
                        await answer
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception:
                with addonmanager.safecall():
                    raise

    def _handlers_of(self, event: hooks.Hook) -> Handlers:
        found = self.handlers.get(event.name)
        if found is None:
            found = self.handlers[event.name] = self._find(event)
        return found

    def _find(self, event: hooks.Hook) -> Handlers:
        groups = (
            tuple(handler for _, handler in self._iter_hooks(addon, event))
            for addon in self.chain
            if not self._is_idle(addon)
        )
        return tuple(group for group in groups if group)

    def _is_idle(self, addon: object) -> bool:
        if not isinstance(self.master, DumpMaster):
            return False
        options = IDLE_WITHOUT.get(addonmanager._get_name(addon))  # noqa: SLF001 - the version is pinned
        return options is not None and not any(getattr(self.master.options, name) for name in options)

    def forget(self, updated: object = None) -> None:
        """Addons or options have changed."""
        self.handlers.clear()

    def register(self, addon: Any) -> Any:
        """An addon comes. Its parent, or ``add``, puts it into the chain in this same turn of the loop."""
        self.forget()
        return super().register(addon)  # type: ignore[no-untyped-call]

    def remove(self, addon: Any) -> None:
        """An addon goes."""
        self.forget()
        super().remove(addon)  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        """All go."""
        self.forget()
        super().clear()  # type: ignore[no-untyped-call]


def install(master: Master) -> None:
    """From now on its addons are called by the list."""
    manager: Any = master.addons
    manager.handlers = {}
    manager.__class__ = CachedAddonManager
    master.options.changed.connect(manager.forget)


def uninstall(master: Master) -> None:
    """Back to mitmproxy's own way."""
    manager: Any = master.addons
    forget = getattr(manager, "forget", None)
    if forget is not None:
        master.options.changed.disconnect(forget)
        manager.__class__ = AddonManager
