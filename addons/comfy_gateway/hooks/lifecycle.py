"""Starts the gateway inside mitmproxy's event loop and ends it with mitmproxy."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from mitmproxy import addonmanager, ctx, optmanager
from mitmproxy.proxy import mode_specs

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.error_pages import ErrorPages
from comfy_gateway.hooks.tls import Certificate

logger = logging.getLogger(__name__)

PLACEHOLDER: Final = "reverse:http://127.0.0.1:9"
"""Nothing listens there: a flow that no hook has routed reaches no server."""
END_WITHIN_S: Final = 8.0
"""Supervisors kill after ten seconds."""
OURS: Final = "comfy_gateway."
OPTIONS: Final[dict[str, object]] = {
    "connection_strategy": "lazy",
    "keep_host_header": True,
    "block_global": False,
    "onboarding": False,
    "http2": False,
}
"""Set unless given on the command line; the reasons stand in the design's table of decisions."""


class LifecycleHook:
    """``start`` makes the gateway and returns its edge; ``stop`` ends it."""

    name = "gateway-lifecycle"

    def __init__(
        self,
        door: Door,
        pages: ErrorPages,
        *,
        host: str,
        port: int,
        start: Callable[[], Awaitable[Edge]],
        stop: Callable[[], Awaitable[None]],
        end_within_s: float = END_WITHIN_S,
        certificate: Certificate | None = None,
    ) -> None:
        self._door = door
        self._pages = pages
        self._host = host
        self._port = port
        self._start = start
        self._stop = stop
        self._end_within_s = end_within_s
        self._certificate = certificate
        self._listeners = logging.getLogger("mitmproxy.addons.proxyserver")

    def load(self, _loader: addonmanager.Loader) -> None:
        """mitmproxy has read its command line; nothing listens yet."""
        self._pages.install()
        if (check := ctx.master.addons.get("errorcheck")) is not None:
            check.logger.addFilter(_ends_the_start)
        ctx.options.update(**{name: value for name, value in OPTIONS.items() if not _is_given(name)})
        # One line for every connection of every browser would bury ours.
        logging.getLogger("mitmproxy.proxy").setLevel(logging.WARNING)
        if ctx.options.listen_port is None:
            # mitmproxy opens its default port before ``running`` can say where to listen. Where that one is taken
            # it would log an error and with it end the start, though nobody asked for the port.
            self._listeners.addFilter(_is_no_error)

    async def running(self) -> None:
        """mitmproxy is up. An error that is logged before this returns ends the process with exit code 1."""
        try:
            if self._certificate is not None:
                self._certificate.serve(await asyncio.to_thread(self._certificate.prepare))
            self._door.open(await self._start())
            await self._listen()
        except (GatewayError, OSError) as error:
            self._door.close()
            logger.error("The gateway cannot start: %s", error)  # noqa: TRY400 - its reader needs no trace
        finally:
            self._listeners.removeFilter(_is_no_error)

    async def _listen(self) -> None:
        """Move the listener to where the settings say, unless the command line said where."""
        options = ctx.options
        server = ctx.master.addons.get("proxyserver")
        modes = [mode_specs.ProxyMode.parse(mode) for mode in options.mode]
        if not options.server or server is None:
            return
        if [mode.full_spec for mode in modes] == ["regular"]:
            modes = [mode_specs.ProxyMode.parse(PLACEHOLDER)]
        host, port = options.listen_host or self._host, self._port
        if options.listen_port is not None:
            port = options.listen_port
        wanted = [
            mode.full_spec
            if mode.custom_listen_port is not None
            else f"{mode.full_spec}@{_bracketed(host)}:{port}"
            for mode in modes
        ]
        if wanted != list(options.mode):
            options.update(mode=wanted)
        await server.setup_servers()
        for instance in server.servers:
            if not instance.is_running:
                raise OSError(f"{host}:{port} cannot be listened on: {instance.last_exception}")
        scheme = "http" if self._certificate is None else "https"
        places = " and ".join(
            f"{scheme}://{_bracketed(address[0])}:{address[1]}/" for address in server.listen_addrs()
        )
        logger.info("The gateway is ready at %s", places)

    async def done(self) -> None:
        """mitmproxy ends."""
        self._door.close()
        try:
            async with asyncio.timeout(self._end_within_s):
                await self._stop()
        except TimeoutError:
            logger.warning("The gateway did not end cleanly within %.0f s", self._end_within_s)
        self._pages.uninstall()


def _is_given(option: str) -> bool:
    # has_changed() does not tell: what people may give instead of ours is mitmproxy's own default.
    return ctx.options._options[option].value is not optmanager.unset  # noqa: SLF001 - the version is pinned


def _ends_the_start(record: logging.LogRecord) -> bool:
    """mitmproxy exits when anything logs an error before it is up. A full disk or an account that is refused are errors
    for an operator to read; the gateway serves all the same.
    """
    return record.name == __name__ or not record.name.startswith(OURS)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
