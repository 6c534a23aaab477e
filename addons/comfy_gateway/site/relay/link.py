"""One upstream socket: of one channel, to one backend.

There is never a second one before the first is closed. ComfyUI forgets whoever is registered under a socket
id when a handler ends, so an overlapping second socket would stay open and hear nothing. One loop therefore
opens, serves, closes and opens again, and a dismissal during the handshake waits for the handshake and then
closes properly.

Frames are held back in two cases, so that what was missed is told before what came later: just after connecting,
until the server has said what became of the prompts that were open; and from the end of a prompt on of which something
may have been missed, until its history has told that.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum, Flag, auto
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import WSMsgType
from yarl import URL

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.events import frames
from comfy_gateway.core.events.frames import Frame, Message
from comfy_gateway.core.events.outbox import Outbox
from comfy_gateway.core.ports import Clock, ComfyServer, Fates
from comfy_gateway.core.requests.upstream import Backend, front_door_headers
from comfy_gateway.site.relay.client import ENDED, GONE
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats

logger = logging.getLogger(__name__)

NEVER_HELD: Final = frozenset({"status", "feature_flags"})
"""They have no place in the order of events, and a client's handshake waits for the first."""


class Hold(Flag):
    """Why frames are held back."""

    FRESH = auto()
    """The server has not said yet what became of the prompts that were open."""
    GAP = auto()
    """Something may have been missed before the ending that is held first."""
    ALL = FRESH | GAP


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

    def tell_fates(self, link: "Link", fates: Fates) -> bool:
        """What was looked up. True when the server had finished a prompt."""
        ...

    def has_missed(self, link: "Link", message: Message | None) -> bool:
        """Whether this is the end of a prompt of which something may have been missed, that must be told before."""
        ...

    def tell_missed(self, link: "Link", message: Message, entry: Mapping[str, Any] | None) -> None:
        """The history's entry of the prompt of such a message, None when there was none in time."""
        ...

    def link_cut(self, link: "Link") -> None:
        """The socket that was open is closed; what was held back has been told."""
        ...

    def wants_again(self, link: "Link", failures: int) -> bool:
        """Whether to connect again after so many failures in a row (0 after a socket that was open)."""
        ...

    def link_ended(self, link: "Link", *, was_lost: bool) -> None:
        """This link does nothing any more. ``was_lost``: given up rather than dismissed."""
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
        self._renewed = asyncio.Event()
        self._attempt: asyncio.Future[Reached] = asyncio.get_running_loop().create_future()
        self._is_open = False
        self._held: deque[tuple[Frame, Message | None]] = deque()
        self._held_bytes = 0
        self._holds = Hold(0)
        self._gap = asyncio.Event()
        """Set while the first of the held frames is an ending that waits for what was missed."""
        self._released = asyncio.Event()
        """Set by each release that comes."""
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

    def renew(self) -> None:
        """Close the socket and open another: the server does not tell this one anything."""
        self._renewed.set()

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
        was_lost = False
        try:
            while not self.is_dismissed:
                socket = await self._connect()
                was_steady = (
                    socket is not None and await self._serve_and_close(socket) >= self._limits.steady_s
                )
                failures = 0 if was_steady else failures + 1
                if self.is_dismissed or not self._owner.wants_again(self, failures if socket is None else 0):
                    was_lost = not self.is_dismissed
                    return
                await self._pause(self._backoff_s(failures))
        finally:
            self._dismissed.set()
            self._settle(Reached.DISMISSED)
            self._owner.link_ended(self, was_lost=was_lost)

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
            self._let_go(Hold.ALL)
            self._owner.link_cut(self)
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
        self._holds = Hold.FRESH if self._owner.untold(self) else Hold(0)
        self._renewed.clear()
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
                group.create_task(self._until(self._dismissed), name="relay link: dismissal"),
                group.create_task(self._until(self._renewed), name="relay link: renewal"),
            ]
            filling = group.create_task(self._fill_gaps(), name="relay link: gaps")
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            self._is_open = False
            # While the reader still reads: a cancelled receive() makes aiohttp's close() wait for nobody.
            await self._hang_up(socket)
            await asyncio.wait([reading], timeout=self._limits.close_timeout_s)
            for task in (writing, filling, *endings):
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
        if message is not None and message.kind in NEVER_HELD:
            self._owner.link_heard(self, frame, message)
            return
        self._held.append((frame, message))
        self._held_bytes += frame.size_bytes
        if message is not None and message.is_release:
            self._released.set()
        # Too much to hold: rather an output too few than a page that waits.
        self._let_go(Hold.ALL if self._held_bytes > self._limits.event_budget_bytes else Hold(0))

    def _let_go(self, hold: Hold) -> None:
        """Give up this reason for holding frames back; tell them when there is no other."""
        self._holds &= ~hold
        while self._held and not self._holds:
            frame, message = self._held[0]
            if hold is not Hold.ALL and self._owner.has_missed(self, message):
                self._holds |= Hold.GAP
                self._gap.set()
                return
            self._held.popleft()
            self._held_bytes -= frame.size_bytes
            self._owner.link_heard(self, frame, message)

    async def _fill_gaps(self) -> None:
        """Before an ending that waits: what the history has of it when the release is said."""
        while True:
            await self._gap.wait()
            self._gap.clear()
            _, ending = self._held[0] if self._held else (None, None)
            if ending is None or ending.prompt_id is None:
                continue
            entry = None
            try:
                async with asyncio.timeout(self._limits.hold_s):
                    entry = await self._entry_after_release(ending.prompt_id)
            except (BackendUnavailable, TimeoutError) as error:
                logger.info("%s does not tell what was missed: %s", self.backend.id, str(error) or "too late")
            self._owner.tell_missed(self, ending, entry)
            self._let_go(Hold.GAP)

    async def _entry_after_release(self, prompt_id: str) -> Mapping[str, Any] | None:
        self._released.clear()
        if not any(message is not None and message.is_release for _, message in self._held):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.release_wait_s):
                    await self._released.wait()
        return await self._server.entry(self.backend, prompt_id)

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
                if await self._make_up():
                    logger.warning("the socket to %s hears nothing and is opened again", self.backend.id)
                    return
            except BackendUnavailable as error:
                logger.info("%s does not tell how prompts ended: %s", self.backend.id, error)

    async def _make_up_what_was_missed(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._limits.hold_s if failures == 0 else None):
                    await self._make_up()
            except (BackendUnavailable, TimeoutError) as error:
                reason = str(error) or "too late"
                logger.info("%s does not tell how prompts ended: %s", self.backend.id, reason)
            else:
                return
            finally:
                self._let_go(Hold.FRESH)
            failures += 1
            await self._clock.sleep(self._backoff_s(failures))

    async def _make_up(self) -> bool:
        fates = dict(await self._server.fates(self.backend, self._owner.untold(self)))
        gone = [prompt_id for prompt_id, entry in fates.items() if entry is None]
        for prompt_id in gone:  # or it came after the queue was asked for: only a second look is sure
            del fates[prompt_id]
        return self._owner.tell_fates(self, {**fates, **await self._server.fates(self.backend, gone)})

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
                group.create_task(self._until(self._dismissed)),
            }
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()

    async def _until(self, event: asyncio.Event) -> None:
        await event.wait()

    def _backoff_s(self, failures: int) -> float:
        """Doubles with each failure; half of it is chance, so that not all come back at once."""
        longest_s = min(self._limits.backoff_first_s * 2.0 ** min(failures, 10), self._limits.backoff_most_s)
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _new_uplink(self) -> Outbox:
        budget_bytes = self._limits.uplink_budget_bytes
        return Outbox(preview_budget_bytes=budget_bytes, event_budget_bytes=budget_bytes)


async def _send(socket: aiohttp.ClientWebSocketResponse[bool], frame: Frame) -> None:
    await socket.send_frame(frame.payload, WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY)
