"""Homes of users on the shared server."""

from comfy_gateway.site.app import Part
from comfy_gateway.site.homes import Homes
from comfy_gateway.site.servers import Servers
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.servers import ServerParts


async def home_pages(base: Base, servers: ServerParts) -> list[Part]:
    """Nothing where everybody has the shared server's own."""
    if not base.settings.access.has_homes:
        return []
    limits = base.settings.limits
    return [
        Homes(
            keys=base.keys,
            home_server=lambda: servers.routes.home,
            servers=Servers(base.http),
            http=await base.http_for_files(),
            silence_s=limits.upstream_timeout_s,
            most_bytes=limits.max_upload_mb * 1024**2,
        )
    ]
