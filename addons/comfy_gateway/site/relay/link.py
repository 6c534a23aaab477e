"""One upstream socket: of one channel, to one backend.

There is never a second one before the first is closed. ComfyUI forgets whoever is registered under a socket
id when a handler ends, so an overlapping second socket would stay open and hear nothing. One loop therefore
opens, serves, closes and opens again, and a dismissal during the handshake waits for the handshake and then
closes properly.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, Protocol

import aiohttp
from aiohttp import WSMsgType
from yarl import URL

from comfy_gateway.core import frames
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.frames import Frame, Message
from comfy_gateway.core.outbox import Outbox
from comfy_gateway.core.ports import Clock, ComfyServer, Fates
from comfy_gateway.core.upstream import Backend, front_door_headers
from comfy_gateway.site.relay.client import ENDED, GONE
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats

logger = logging.getLogger(__name__)

NEVER_HELD: Final = frozenset({"status", "feature_flags"})
"""They have no place in the order of events, and a client's handshake waits for the first."""


class Reached(Enum):
    """How an attempt to connect ended."""

    OPEN = auto()
    UNREACHABLE = auto()
    LATE = auto()
    DISMISSED = auto()


class LinkOwner(Protocol):
    """What a link tells and asks its channel. All of it is synchronous, so frames keep their order."""

    def introduction(self) -> Frame | None:
        """The client's ``feature_flags``, to be sent before anything else, or None."""
        ...

    def link_opened(self, link: "Link") -> None:
        """The socket is open; nothing has been read yet."""
        ...

    def link_heard(self, link: "Link", frame: Frame, message: Message | None) -> None:
        """A frame from the server; the message is None for a binary one."""
        ...

    def untold(self, link: "Link") -> Sequence[str]:
        """Prompts on this backend whose ending the clients have not heard."""
        ...

    def tell_fates(self, link: "Link", fates: Fates, *, is_fresh: bool) -> bool:
        """What was looked up, ``is_fresh`` just after connecting. True when clients were told something."""
        ...

    def wants_again(self, link: "Link", failures: int) -> bool:
        """Whether to connect again after so many failures in a row (0 after a socket that was open)."""
        ...

    def link_ended(self, link: "Link") -> None:
        """The socket is closed and this link does nothing any more."""
        ...


class Link:
    """Keeps one upstream socket open until it is dismissed. ``run`` is its one task."""

    def __init__(
        self,
        backend: Backend,
        path: str,
        owner: LinkOwner,
        *,
        http: aiohttp.ClientSession,
        server: ComfyServer,
        limits: RelayLimits,
        stats: RelayStats,
        clock: Clock,
    ) -> None:
        self.backend = backend
        self.queue_remaining: int | None = None
        """The server's last count, or None before the first."""
        self.executing: Frame | None = None
        """The last ``executing`` of a prompt that runs, for a client that comes later."""
        self.progress: Frame | None = None
        """The last ``progress_state`` of it."""
        self.is_needed = True
        """Whether the channel has a reason to keep it; without one it is dismissed after a farewell."""
        self.is_first = True
        """Whether this connection was made for the channel's first client, who has heard nothing before."""
        self.is_awaiting_features = False
        """Whether our ``feature_flags`` went out on this socket and the server's have not come."""
        self._url = URL(backend.upstream.url(path), encoded=True)
        self._owner = owner
        self._http = http
        self._server = server
        self._limits = limits
        self._stats = stats
        self._clock = clock
        self._uplink = self._new_uplink()
        self._wake = asyncio.Event()
        self._dismissed = asyncio.Event()
        self._attempt: asyncio.Future[Reached] = asyncio.get_running_loop().create_future()
        self._is_open = False
        self._held: list[tuple[Frame, Message | None]] | None = None
        self._held_bytes = 0
        self._heard_at_s = clock.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether events can come at this moment."""
        return self._is_open

    @property
    def is_dismissed(self) -> bool:
        """Whether it is on its way to its end."""
        return self._dismissed.is_set()

    def dismiss(self) -> None:
        """Close the socket and end. Cannot be taken back: a successor is made after ``link_ended``."""
        self._dismissed.set()

    async def reached(self) -> Reached:
        """OPEN at once where it is open, else how the attempt ends that runs or comes next."""
        return Reached.OPEN if self._is_open else await asyncio.shield(self._attempt)

    def send(self, frame: Frame) -> None:
        """Send a client's frame as soon as the socket is open. What is too much to keep is dropped."""
        if not self._uplink.put(frame):
            logger.warning(
                "a client's message is dropped: too many wait for a server that does not take them"
            )
        self._wake.set()

    async def run(self) -> None:
        """Connect, serve, connect again, until dismissed or the owner does not want it again."""
        failures = 0
        try:
            while not self.is_dismissed:
                socket = await self._connect()
                was_steady = (
                    socket is not None and await self._serve_and_close(socket) >= self._limits.steady_s
                )
                failures = 0 if was_steady else failures + 1
                if self.is_dismissed or not self._owner.wants_again(self, failures if socket is None else 0):
                    return
                await self._pause(self._backoff_s(failures))
        finally:
            self._dismissed.set()
            self._settle(Reached.DISMISSED)
            self._owner.link_ended(self)

    async def _connect(self) -> aiohttp.ClientWebSocketResponse[bool] | None:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                return await self._http.ws_connect(
                    self._url,
                    headers=front_door_headers(self.backend.token),
                    heartbeat=self._limits.ping_s,
                    timeout=aiohttp.ClientWSTimeout(ws_close=self._limits.close_timeout_s),
                    max_msg_size=self._limits.max_upstream_message_bytes,
                    decode_text=False,
                )
        except TimeoutError:
            self._note_failure(Reached.LATE, "too late")
        except (aiohttp.ClientError, OSError) as error:
            self._note_failure(Reached.UNREACHABLE, type(error).__name__)
        return None

    def _note_failure(self, reached: Reached, reason: str) -> None:
        logger.info("the socket to %s cannot be opened: %s", self.backend.id, reason)
        self._settle(reached)

    def _settle(self, reached: Reached) -> None:
        self._attempt.set_result(reached)
        self._attempt = asyncio.get_running_loop().create_future()

    async def _serve_and_close(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> float:
        """Returns how many seconds the socket lived."""
        opened_at_s = self._heard_at_s = self._clock.monotonic()
        self._stats.upstream_sockets += 1
        try:
            await self._serve(socket)
        except Exception:  # the loop's edge: the page must not lose its events over one bad connection
            logger.exception("the socket to %s failed", self.backend.id)
        finally:
            self._is_open = False
            self._release_held()
            await self._hang_up(socket)
            self._stats.upstream_sockets -= 1
        if not self.is_dismissed:
            self._stats.reconnects += 1
            logger.info("the socket to %s was lost after %.0f s", self.backend.id, self._lived_s(opened_at_s))
        return self._lived_s(opened_at_s)

    def _lived_s(self, opened_at_s: float) -> float:
        return self._clock.monotonic() - opened_at_s

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._is_open = True
        self._held = [] if self._owner.untold(self) else None
        self._held_bytes = 0
        introduction = self._owner.introduction()
        self.is_awaiting_features = introduction is not None
        self._owner.link_opened(self)
        self._settle(Reached.OPEN)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(socket, introduction), name="relay link: writer")
            reading = group.create_task(self._read(socket), name="relay link: reader")
            endings = [
                reading,
                group.create_task(self._look_after(), name="relay link: endings"),
                group.create_task(self._until_dismissed(), name="relay link: dismissal"),
            ]
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            self._is_open = False
            # While the reader still reads: a cancelled receive() makes aiohttp's close() wait for nobody.
            await self._hang_up(socket)
            await asyncio.wait([reading], timeout=self._limits.close_timeout_s)
            for task in (writing, *endings):
                task.cancel()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        while True:
            received = await socket.receive()
            if received.type in ENDED:
                return
            is_text = received.type is WSMsgType.TEXT
            payload = bytes(received.data)
            frame = frames.text(payload) if is_text else frames.binary(payload)
            self._heard_at_s = self._clock.monotonic()
            self._hear(frame, frames.read(frame))

    def _hear(self, frame: Frame, message: Message | None) -> None:
        if self._held is None or (message is not None and message.kind in NEVER_HELD):
            self._owner.link_heard(self, frame, message)
            return
        self._held.append((frame, message))
        self._held_bytes += frame.size_bytes
        if self._held_bytes > self._limits.event_budget_bytes:
            self._release_held()

    def _release_held(self) -> None:
        held, self._held = self._held or (), None
        for frame, message in held:
            self._owner.link_heard(self, frame, message)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse[bool], introduction: Frame | None) -> None:
        with contextlib.suppress(*GONE):
            if introduction is not None:
                await _send(socket, introduction)
            while True:
                while (frame := self._uplink.take()) is not None:
                    await _send(socket, frame)
                await self._wake.wait()
                self._wake.clear()

    async def _look_after(self) -> None:
        """Make up what was missed before this socket was open; later, look again after each long silence.

        Returns when the server turns out not to tell this socket anything.
        """
        await self._make_up_what_was_missed()
        while True:
            await self._clock.sleep(self._limits.audit_s)
            if self._clock.monotonic() - self._heard_at_s < self._limits.audit_s:
                continue
            try:
                if await self._make_up(is_fresh=False):
                    logger.warning("the socket to %s hears nothing and is opened again", self.backend.id)
                    return
            except BackendUnavailable as error:
                logger.info("%s does not tell how prompts ended: %s", self.backend.id, error)

    async def _make_up_what_was_missed(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._limits.hold_s if failures == 0 else None):
                    await self._make_up(is_fresh=True)
            except (BackendUnavailable, TimeoutError) as error:
                reason = str(error) or "too late"
                logger.info("%s does not tell how prompts ended: %s", self.backend.id, reason)
            else:
                return
            finally:
                self._release_held()
            failures += 1
            await self._clock.sleep(self._backoff_s(failures))

    async def _make_up(self, *, is_fresh: bool) -> bool:
        prompt_ids = self._owner.untold(self)
        if not prompt_ids:
            return False
        fates = await self._server.fates(self.backend, prompt_ids)
        return self._owner.tell_fates(self, fates, is_fresh=is_fresh)

    async def _hang_up(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        """Close and wait until the server has closed too; its handler has ended by then."""
        try:
            async with asyncio.timeout(self._limits.close_timeout_s):
                await socket.close()
        except TimeoutError:
            logger.info("%s did not answer the closing handshake", self.backend.id)

    async def _pause(self, delay_s: float) -> None:
        """Return after the delay, or at once when dismissed."""
        async with asyncio.TaskGroup() as group:
            waiting = {
                group.create_task(self._clock.sleep(delay_s)),
                group.create_task(self._until_dismissed()),
            }
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()

    async def _until_dismissed(self) -> None:
        await self._dismissed.wait()

    def _backoff_s(self, failures: int) -> float:
        """Doubles with each failure; half of it is chance, so that not all come back at once."""
        longest_s = min(self._limits.backoff_first_s * 2.0 ** min(failures, 10), self._limits.backoff_most_s)
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _new_uplink(self) -> Outbox:
        budget_bytes = self._limits.uplink_budget_bytes
        return Outbox(preview_budget_bytes=budget_bytes, event_budget_bytes=budget_bytes)


async def _send(socket: aiohttp.ClientWebSocketResponse[bool], frame: Frame) -> None:
    await socket.send_frame(frame.payload, WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY)
