"""Runs the site on a free loopback port in the current event loop."""

from aiohttp import web

from comfy_gateway.core.requests.upstream import Upstream

MAX_HEADER_BYTES = 128 * 1024


class SiteServer:
    """Started once, ended once."""

    def __init__(self, app: web.Application) -> None:
        # A request's body may be refused unread; what was sent meanwhile is drained for two seconds, not ten.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            lingering_time=2.0,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            handler_cancellation=True,
            shutdown_timeout=1.0,
        )

    async def start(self) -> Upstream:
        """Listen; returns where."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return Upstream("http", host, port)

    async def aclose(self) -> None:
        """Stop listening and end what is open."""
        await self._runner.cleanup()
