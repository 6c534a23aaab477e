"""The front end of the shared server, kept by the gateway."""

from functools import partial

from comfy_gateway.adapters.interface_source import HomeInterface
from comfy_gateway.core.requests.classify import RequestClass, RouteRules, classify
from comfy_gateway.service.interface.cache import InterfaceCache
from comfy_gateway.service.interface.store import InterfaceStore
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.servers import ServerParts


async def build_interface(base: Base, servers: ServerParts) -> InterfaceCache | None:
    """None where it is switched off."""
    limits = base.settings.limits
    if not limits.interface_cache:
        return None
    return InterfaceCache(
        source=HomeInterface(await base.http_for_files(), lambda: servers.routes.home),
        store=InterfaceStore(limits.interface_cache_mb * 1024**2),
        clock=base.clock,
        tasks=base.tasks,
        is_module=partial(_is_of_interface, base.settings.routes),
    )


def _is_of_interface(rules: RouteRules, path: str) -> bool:
    """False where the configuration sends the module elsewhere."""
    return classify("GET", path, rules) is RequestClass.INTERFACE
