"""The client's WebSocket: who it is stands in the hooks' headers, the rest is the relay's."""

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.service.files.files import Files
from comfy_gateway.site.asker import Asker
from comfy_gateway.site.relay import Relay


class Socket:
    """Hands sockets to the relay, and says where they are heard."""

    def __init__(self, relay: Relay, files: Files) -> None:
        self._relay = relay
        self._files = files

    def routes(self) -> list[web.RouteDef]:
        """Where the hooks send every WebSocket."""
        return [web.get(site_contract.RELAY_PATH, self.handle)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One socket for its whole life."""
        asker = Asker.of(request)
        with self._files.listening(asker.peer, asker.key):
            return await self._relay.handle(
                request, user=asker.user, sid=request.query.get("clientId") or None, peer=asker.peer
            )
