"""The WebSocket of ComfyUI, between a client and all servers that have something to tell it."""

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import aiohttp
from aiohttp import web

from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpaces
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.prompts.visibility import OPEN, Visibility
from comfy_gateway.core.requests.refusals import (
    UPSTREAM_LATE,
    UPSTREAM_UNREACHABLE,
    Refusal,
    too_many_sockets,
)
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.core.results.queue_merge import OrderOf, by_number
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.relay.channel import Channel
from comfy_gateway.site.relay.client import ClientSocket
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats
from comfy_gateway.site.relay.link import Reached
from comfy_gateway.site.relay.ports import FileNotes, NoNotes, NoRescue, Rescuer
from comfy_gateway.site.relay.surroundings import Surroundings

type ChannelKey = tuple[str | None, str]
"""User key and socket id."""

NO_WEBSOCKET: Final = Refusal(400, "websocket_expected", "This address speaks WebSocket only.")
CLOSING: Final = Refusal(503, "gateway_closing", "The gateway is shutting down.", retry_after_s=5)
MAX_REMEMBERED: Final = 10_000
"""Socket ids whose clients may come back for what they missed."""
CLOSING_S: Final = 0.7
"""For clients and servers to answer the closing handshake when the relay ends."""


class Relay:
    """Hands out the handler of ``GET /ws``. Must be closed in the event loop in which it served."""

    def __init__(
        self,
        *,
        routes: Routes,
        ledger: Ledger,
        keys: Keys,
        clock: Clock,
        limits: RelayLimits = RelayLimits(),  # noqa: B008 - frozen
        files: FileNotes | None = None,
        rescuer: Rescuer | None = None,
        visibility: Visibility = OPEN,
        spaces: InputSpaces = EVERYBODYS,
        order_of: OrderOf = by_number,
        nudge: Callable[[UserId], None] = lambda _user: None,
    ) -> None:
        """Without ``rescuer`` a forgotten prompt is lost, without ``files`` nobody notes who made which.

        ``nudge(user)`` has the user's pod looked at soon: it has lost a socket, or opens none.
        """
        self._routes = routes
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._limits = limits
        self._files: FileNotes = files or NoNotes()
        self._rescuer: Rescuer = rescuer or NoRescue(ledger)
        self._visibility = visibility
        self._spaces = spaces
        self._order_of = order_of
        self._nudge = nudge
        self._tasks = Tasks("relay")
        self._channels: dict[ChannelKey, Channel] = {}
        self._unheard: OrderedDict[ChannelKey, frozenset[str]] = OrderedDict()
        """Of channels that have ended: prompts whose end no client is known to have heard."""
        self._around: Surroundings | None = None
        self._handlers = 0
        self._sockets: Counter[tuple[str, str]] = Counter()
        """Open or being opened, by whose they are."""
        self._is_closed = False
        self._quiet = asyncio.Event()
        self._stop_watching = [routes.watch(self._route_changed), ledger.watch(self._prompt_changed)]
        self.stats = RelayStats()

    async def handle(
        self, request: web.Request, *, user: UserId | None, sid: str | None, peer: str = ""
    ) -> web.StreamResponse:
        """Serve one client until its socket is closed.

        ``sid`` is the ``clientId`` that the client named, None for one that wants an id made; ``peer`` its address.
        Answers 400 to a request that is no WebSocket handshake, 429 to one socket too many, 502 when the user's server
        refuses or is dead, 504 when it is late and 503 after ``aclose``; all of them JSON ``{"error": {"type",
        "message"}}`` without any address.
        """
        client = ClientSocket(self._limits, self.stats, self._clock)
        if not client.can_accept(request):
            return answer(NO_WEBSOCKET)
        if self._is_closed:
            return self._unreached(Reached.DISMISSED)
        whose = ("user", user.key) if user is not None else ("address", peer)
        if 0 < self._limits.sockets_per_user <= self._sockets[whose]:
            return answer(too_many_sockets(self._limits.sockets_per_user))
        self._handlers += 1
        self._sockets[whose] += 1
        try:
            return await self._serve(client, request, user, sid or uuid4().hex)
        finally:
            self._handlers -= 1
            self._sockets[whose] -= 1
            if not self._sockets[whose]:
                del self._sockets[whose]
            self._look_whether_quiet()

    async def is_listening(
        self, user: UserId | None, sid: str, *, timeout_s: float, backend: Backend | None = None
    ) -> bool:
        """Wait until events of a prompt sent now to that backend, or else to the user's current one, would be heard.

        True at once where that socket is open, and where no client has this socket id. False when it did not
        open in time. Asking this before a prompt is sent up closes the gap between a change of route and the
        new socket; the socket is kept until the ledger knows the prompt.
        """
        channel = self._channels.get((user.key if user else None, sid))
        if channel is None or channel.is_leaving:
            return True
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        channel.expect(backend)
        return await _reach(channel, deadline_s, backend) is Reached.OPEN

    def mark_page(self, user: UserId, sid: str) -> bool:
        """The page behind this user's open sockets of that id knows our own messages. False where there is none.

        Another's socket id is nobody's here. A page that reconnects says so again.
        """
        channel = self._channels.get((user.key, sid))
        return channel is not None and channel.mark_pages()

    def page_users(self) -> set[UserId]:
        """Whose pages would hear ``tell_pages``."""
        found = (channel.user_of_pages for channel in self._channels.values())
        return {user for user in found if user is not None}

    def tell_pages(self, user: UserId, frame: Frame) -> bool:
        """Give a message of the gateway's own to this user's pages. False where none is open.

        No other client hears it: a script may fail at a type of message that ComfyUI does not have.
        """
        told = [
            channel.tell_pages(frame)
            for (user_key, _), channel in tuple(self._channels.items())
            if user_key == user.key
        ]
        return any(told)

    def dismiss(self, user: UserId) -> None:
        """Close all sockets of a user with 1001; whoever still may, comes back by a new handshake."""
        for (user_key, _), channel in tuple(self._channels.items()):
            if user_key == user.key:
                channel.end()

    async def aclose(self) -> None:
        """Close all clients with 1001 and all upstream sockets, within a second."""
        self._is_closed = True
        while self._stop_watching:
            self._stop_watching.pop()()
        for channel in tuple(self._channels.values()):
            channel.end()
        self._look_whether_quiet()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self._quiet.wait()
        await self._tasks.aclose()
        if self._around is not None:
            await self._around.http.close()

    async def _serve(
        self, client: ClientSocket, request: web.Request, user: UserId | None, sid: str
    ) -> web.StreamResponse:
        deadline_s = asyncio.get_running_loop().time() + self._limits.connect_timeout_s
        channel = await self._channel(user, sid, request, deadline_s)
        if channel is None:
            return self._unreached(Reached.LATE)
        with channel.visit():
            reached = await _reach(channel, deadline_s)
            if reached is not Reached.OPEN:
                return self._unreached(reached)
            try:
                await client.accept(request)
            except ConnectionError:  # the client has not waited
                return client.response
            channel.attach(client)
        try:
            await client.run(lambda frame: channel.hear_client(client, frame))
        finally:
            channel.detach(client)
        return client.response

    def _unreached(self, reached: Reached) -> web.Response:
        if self._is_closed:
            return answer(CLOSING)
        return answer(UPSTREAM_LATE if reached is Reached.LATE else UPSTREAM_UNREACHABLE)

    async def _channel(
        self, user: UserId | None, sid: str, request: web.Request, deadline_s: float
    ) -> Channel | None:
        """The channel of this pair, made where there is none; None when the one before ends too late, or we do."""
        key = (user.key if user is not None else None, sid)
        while (channel := self._channels.get(key)) is not None and channel.is_leaving:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await channel.emptied()
            except TimeoutError:
                return None
        if channel is None and not self._is_closed:
            query = [(name, value) for name, value in request.query.items() if name != "clientId"]
            channel = Channel(
                user,
                sid,
                query,
                self._surroundings(),
                lambda: self._forget(key),
                unheard=self._unheard.pop(key, ()),
            )
            self._channels[key] = channel
        return channel

    def _forget(self, key: ChannelKey) -> None:
        unheard = self._channels.pop(key).unheard()
        if unheard:
            self._unheard[key] = frozenset(unheard)
            if len(self._unheard) > MAX_REMEMBERED:
                self._unheard.popitem(last=False)
        self._look_whether_quiet()

    def _look_whether_quiet(self) -> None:
        if self._is_closed and not self._channels and not self._handlers:
            self._quiet.set()

    def _surroundings(self) -> Surroundings:
        """Made with the first client: the HTTP session needs a running loop."""
        if self._around is None:
            http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_no_redirects,),
            )
            self._around = Surroundings(
                routes=self._routes,
                ledger=self._ledger,
                files=self._files,
                rescuer=self._rescuer,
                keys=self._keys,
                clock=self._clock,
                limits=self._limits,
                stats=self.stats,
                tasks=self._tasks,
                http=http,
                server=HttpComfyServer(http, self._limits.look_up_timeout_s),
                visibility=self._visibility,
                spaces=self._spaces,
                order_of=self._order_of,
                nudge=self._nudge,
            )
        return self._around

    def _route_changed(self, user: UserId) -> None:
        for (user_key, _), channel in tuple(self._channels.items()):
            if user_key == user.key:
                channel.reconcile()

    def _prompt_changed(self, record: PromptRecord) -> None:
        channel = self._channels.get((record.user_key, record.sid))
        if channel is not None:
            channel.note(record)


async def _no_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A redirect would carry the pod's token to wherever it points."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.ClientConnectionError("the server redirects")
    return response


async def _reach(channel: Channel, deadline_s: float, backend: Backend | None = None) -> Reached:
    try:
        async with asyncio.timeout_at(deadline_s):
            return await channel.reached(backend)
    except TimeoutError:
        return Reached.LATE
