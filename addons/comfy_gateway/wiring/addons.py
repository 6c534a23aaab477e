"""What mitmproxy loads."""

import sys
from functools import partial

from comfy_gateway.core.people.callers import TrustedProxies
from comfy_gateway.hooks.badge_entry import BadgeEntryHook
from comfy_gateway.hooks.bounds import BoundsHook, ConnectionBounds
from comfy_gateway.hooks.compress import CompressHook
from comfy_gateway.hooks.deadlines import DeadlinesHook
from comfy_gateway.hooks.edge import Door
from comfy_gateway.hooks.error_pages import ErrorPages
from comfy_gateway.hooks.evict import EvictHook
from comfy_gateway.hooks.fast_path import FastPathHook
from comfy_gateway.hooks.frames import FramesHook
from comfy_gateway.hooks.identity import IdentityHook
from comfy_gateway.hooks.inspect import InspectHook
from comfy_gateway.hooks.keep import kept_bytes
from comfy_gateway.hooks.lifecycle import LifecycleHook
from comfy_gateway.hooks.prompts import PromptsHook
from comfy_gateway.hooks.redact import RedactHook
from comfy_gateway.hooks.router import RouterHook
from comfy_gateway.hooks.views import ViewsHook
from comfy_gateway.settings import Settings, SettingsError, load
from comfy_gateway.wiring.gateway import Gateway
from comfy_gateway.wiring.sign_in import caller_rules

EXIT_SETTINGS = 2


def build_addons() -> list[object]:
    """The list that mitmproxy loads, in the order in which a flow meets it.

    Wrong settings end the process with exit code 2 and one line for each fault.
    """
    try:
        return addons_for(load())
    except SettingsError as error:
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        sys.exit(EXIT_SETTINGS)


def addons_for(settings: Settings) -> list[object]:
    """The hooks of one gateway. Raises SettingsError for what only RunPod's adapter can judge."""
    gateway = Gateway(settings)
    door = Door()
    pages = ErrorPages()
    keep_bytes = partial(kept_bytes, settings.limits.keep_mb)
    return [
        *([FastPathHook()] if settings.limits.fast_path else []),
        LifecycleHook(
            door,
            pages,
            host=settings.listen.host,
            port=settings.listen.port,
            start=gateway.start,
            stop=gateway.stop,
            certificate=gateway.certificate,
        ),
        BoundsHook(_bounds_of(settings)),
        IdentityHook(door, caller_rules(settings)),
        *([CompressHook()] if settings.limits.interface_cache else []),
        PromptsHook(door),
        *([BadgeEntryHook()] if settings.limits.ui_badge else []),
        RouterHook(door, keep_bytes=keep_bytes),
        DeadlinesHook(
            door,
            pages,
            connect_timeout_s=settings.limits.connect_timeout_s,
            answer_timeout_s=settings.limits.upstream_timeout_s,
        ),
        FramesHook(keep_bytes=keep_bytes),
        RedactHook(door),
        InspectHook(),
        ViewsHook(),
        EvictHook(settings.limits.watch_mb),
    ]


def _bounds_of(settings: Settings) -> ConnectionBounds:
    """Proxies on this machine, or that are trusted, carry many people."""
    trusted = (*settings.access.trusted_proxies, "127.0.0.0/8", "::1")
    return ConnectionBounds(exempt=TrustedProxies(trusted))
