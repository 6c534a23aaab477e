"""The client's WebSocket: who it is stands in the hooks' headers, the rest is the relay's."""

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.users import UserId
from comfy_gateway.site.relay import Relay


class Socket:
    """Hands sockets to the relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def routes(self) -> list[web.RouteDef]:
        """Where the hooks send every WebSocket."""
        return [web.get(site_contract.RELAY_PATH, self.handle)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One socket for its whole life."""
        key = request.headers.get(site_contract.USER)
        user = None if key is None else UserId.from_key(key)
        return await self._relay.handle(request, user=user, sid=request.query.get("clientId") or None)
