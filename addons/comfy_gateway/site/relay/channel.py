"""Everything that belongs to one socket id of one user: its audience, and the servers that it is told from.

* There is one upstream socket to the user's current backend, and one to each other backend from which
  something is still to come.
* On a move the new socket is opened first; the old one stays until nothing is to come from there.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSCloseCode

from comfy_gateway.core import frames, making_up, merge
from comfy_gateway.core.frames import Frame, Message
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.making_up import MadeUp
from comfy_gateway.core.ports import Clock, ComfyServer, Fates
from comfy_gateway.core.prompts import UNFINISHED, Outcome, PromptRecord
from comfy_gateway.core.socket_ids import upstream_sid
from comfy_gateway.core.stories import VERDICTS, Stories, Story
from comfy_gateway.core.upstream import Backend
from comfy_gateway.core.users import UserId
from comfy_gateway.service.ledger import Ledger
from comfy_gateway.service.routes import Routes
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.site.relay.audience import Audience
from comfy_gateway.site.relay.client import ClientSocket
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats
from comfy_gateway.site.relay.link import Link, Reached

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all channels of a relay use together."""

    routes: Routes
    ledger: Ledger
    keys: Keys
    clock: Clock
    limits: RelayLimits
    stats: RelayStats
    tasks: Tasks
    http: aiohttp.ClientSession
    server: ComfyServer


class Channel:
    """One (user, sid), from its first client until some seconds after its last.

    It ends by ``leaving``: from then on it takes nobody in, and ``on_empty`` is called when its upstream
    sockets are closed. Only then may another channel for the same pair be made.
    """

    def __init__(
        self,
        user: UserId | None,
        sid: str,
        query: Sequence[tuple[str, str]],
        around: Surroundings,
        on_empty: Callable[[], None],
    ) -> None:
        self._user = user
        self._around = around
        self._on_empty = on_empty
        self._path = "/ws?" + urlencode([("clientId", upstream_sid(around.keys, user, sid)), *query])
        self._audience = Audience(sid, self._running, around.limits, around.stats)
        self._stories = Stories()
        self._introduction: Frame | None = None
        self._links: dict[str, Link] = {}
        self._farewells: dict[str, asyncio.Task[None]] = {}
        self._visitors = 0
        self._has_served = False
        self._linger: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._emptied = asyncio.Event()
        user_key = user.key if user is not None else None
        for record in around.ledger.unfinished(user=user, sid=sid):
            if record.user_key == user_key:
                self._stories.note(record)

    # -- clients

    @property
    def is_leaving(self) -> bool:
        """Whether it takes nobody in any more."""
        return self._leaving.is_set()

    async def emptied(self) -> None:
        """Return when its upstream sockets are closed for good."""
        await self._emptied.wait()

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Keeps the channel from leaving while a client's handshake is under way."""
        self._visitors += 1
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        try:
            yield
        finally:
            self._visitors -= 1
            self._maybe_leave()
            self._maybe_empty()

    async def reached(self) -> Reached:
        """OPEN when the current backend's socket is open; else how the attempt to open it ended."""
        while not self.is_leaving:
            self.reconcile()
            link = self._links[self._current.id]
            reached = await link.reached()
            if reached in {Reached.UNREACHABLE, Reached.LATE}:
                return reached
            if link.is_open and link.backend.id == self._current.id:
                return Reached.OPEN
        return Reached.DISMISSED

    def attach(self, client: ClientSocket) -> None:
        """A client whose handshake is done; ended at once when the channel was ended meanwhile."""
        self._has_served = True
        self._audience.add(client)
        if self.is_leaving:
            client.end(WSCloseCode.GOING_AWAY)

    def detach(self, client: ClientSocket) -> None:
        """The client is gone."""
        self._audience.remove(client)
        self._maybe_leave()
        self._maybe_empty()

    def hear_client(self, client: ClientSocket, frame: Frame) -> None:
        """A frame for the current backend; feature flags are for every backend, as its first frame."""
        is_first, client.has_spoken = not client.has_spoken, True
        message = frames.read(frame) if is_first else None
        if message is not None and message.kind == "feature_flags":
            self._introduce(frame)
            self._audience.ask_features(client)
        elif (link := self._links.get(self._current.id)) is not None:
            link.send(frame)

    def end(self) -> None:
        """Close all sockets, the clients' with 1001."""
        self._audience.end(WSCloseCode.GOING_AWAY)
        self._leave()

    # -- the ledger and the routes

    def note(self, record: PromptRecord) -> None:
        """The ledger has accepted or ended a prompt of this user and socket id."""
        story = self._stories.note(record)
        if record.outcome is Outcome.LOST and not story.has_verdict and not story.is_over:
            self._tell_lost(record.prompt_id, story)
        self.reconcile()

    def reconcile(self) -> None:
        """Open what is needed, and see off what is not. May be called at any time."""
        if self.is_leaving:
            return
        needed = self._needed()
        for backend in needed.values():
            if backend.id not in self._links:
                self._open(backend)
        for link in self._links.values():
            self._set_needed(link, is_needed=link.backend.id in needed)

    @property
    def _current(self) -> Backend:
        return self._around.routes.current(self._user)

    def _needed(self) -> dict[str, Backend]:
        current = self._current
        needed = {current.id: current}
        for backend_id in self._stories.backends_needed() - {current.id}:
            link = self._links.get(backend_id)
            backend = link.backend if link is not None else self._around.routes.by_id(self._user, backend_id)
            if backend is not None:
                needed[backend_id] = backend
        return needed

    def _open(self, backend: Backend) -> None:
        around = self._around
        link = Link(
            backend,
            self._path,
            self,
            http=around.http,
            server=around.server,
            limits=around.limits,
            stats=around.stats,
            clock=around.clock,
        )
        self._links[backend.id] = link
        around.tasks.start(link.run(), name=f"socket to {backend.id}")

    def _set_needed(self, link: Link, *, is_needed: bool) -> None:
        link.is_needed = is_needed
        farewell = self._farewells.get(link.backend.id)
        if is_needed and farewell is not None:
            farewell.cancel()
            del self._farewells[link.backend.id]
        elif not is_needed and farewell is None and not link.is_dismissed:
            self._farewells[link.backend.id] = self._around.tasks.start(
                self._farewell(link), name=f"farewell to {link.backend.id}"
            )

    async def _farewell(self, link: Link) -> None:
        """Dismiss a link that stays unneeded, but not before the current one is open."""
        while True:
            await self._around.clock.sleep(self._around.limits.farewell_s)
            current = self._links.get(self._current.id)
            if current is not None and current.is_open:
                link.dismiss()
                return

    # -- what links tell and ask

    def introduction(self) -> Frame | None:
        """See LinkOwner."""
        return self._introduction

    def link_opened(self, link: Link) -> None:
        """See LinkOwner."""
        link.executing = link.progress = None
        link.is_first = not self._has_served

    def untold(self, link: Link) -> Sequence[str]:
        """See LinkOwner."""
        return self._stories.unfinished_on(link.backend.id)

    def wants_again(self, link: Link, failures: int) -> bool:
        """See LinkOwner."""
        if not link.is_needed:
            return False
        is_routed = self._around.routes.by_id(self._user, link.backend.id) is not None
        return is_routed or failures < self._around.limits.lost_tries

    def link_ended(self, link: Link) -> None:
        """See LinkOwner."""
        del self._links[link.backend.id]
        farewell = self._farewells.pop(link.backend.id, None)
        if farewell is not None:
            farewell.cancel()
        self._audience.tell_remaining(self._remaining())
        self.reconcile()
        self._maybe_empty()

    def link_heard(self, link: Link, frame: Frame, message: Message | None) -> None:
        """See LinkOwner."""
        if message is None:
            self._audience.tell(frame)
        elif message.kind == "status":
            link.queue_remaining = merge.read_queue_remaining(message.data)
            is_greeting = "sid" in message.data
            self._audience.tell_status(message, self._remaining(), is_greeting=is_greeting)
        elif message.kind == "feature_flags" and link.is_awaiting_features:
            link.is_awaiting_features = False
            self._audience.tell_features(frame, is_current=link.backend.id == self._current.id)
        elif self._stories.hear(link.backend.id, message):
            self._hear_event(link, frame, message)

    def tell_fates(self, link: Link, fates: Fates, *, is_fresh: bool) -> bool:
        """See LinkOwner."""
        has_told = False
        for prompt_id, entry in fates.items():
            story = self._stories.find(prompt_id)
            if story is None or story.is_over or story.backend_id != link.backend.id:
                continue  # told while the server was asked
            if entry is not None:
                self._tell_made_up(prompt_id, making_up.from_history(prompt_id, entry, story))
                has_told = True
            elif is_fresh and story.outcome in UNFINISHED:
                self._tell_lost(prompt_id, story)
                has_told = True
            else:
                # A server that was there all the time and has it no more: somebody took it out of the queue.
                self._stories.end(prompt_id)
                self._end_in_ledger(prompt_id, Outcome.INTERRUPTED)
        self.reconcile()
        return has_told

    def _hear_event(self, link: Link, frame: Frame, message: Message) -> None:
        prompt_id = message.prompt_id
        if message.kind == "executing" and prompt_id is None and not link.is_first:
            return  # a server's greeting to a socket that comes back; the clients never went away
        self._keep_running(link, frame, message)
        self._audience.tell(frame)
        if prompt_id is None:
            return
        if message.kind in VERDICTS:
            self._end_in_ledger(prompt_id, VERDICTS[message.kind])
        elif message.is_release:
            story = self._stories.find(prompt_id)
            if story is not None and not story.has_verdict:  # a server from before execution_success
                self._end_in_ledger(prompt_id, Outcome.DONE)
            self.reconcile()

    def _keep_running(self, link: Link, frame: Frame, message: Message) -> None:
        if message.kind in VERDICTS or message.is_release:
            link.executing = link.progress = None
        elif message.kind == "executing":
            link.executing = frame
        elif message.kind == "progress_state":
            link.progress = frame

    # -- what the audience is told

    def _running(self) -> Iterator[Frame]:
        for link in self._links.values():
            for frame in (link.executing, link.progress):
                if frame is not None:
                    yield frame

    def _remaining(self) -> int | None:
        return merge.total_queue_remaining(link.queue_remaining for link in self._links.values())

    def _introduce(self, frame: Frame) -> None:
        """Sent now to the servers that had none, and first of all to every later one."""
        is_known = self._introduction is not None
        self._introduction = frame
        for link in () if is_known else self._links.values():
            if link.is_open:
                link.is_awaiting_features = True
                link.send(frame)

    def _tell_lost(self, prompt_id: str, story: Story) -> None:
        now_ms = int(self._around.clock.now().timestamp() * 1000)
        self._tell_made_up(prompt_id, making_up.lost(prompt_id, story, now_ms=now_ms))

    def _tell_made_up(self, prompt_id: str, made_up: MadeUp) -> None:
        self._stories.end(prompt_id)
        self._around.stats.made_up_endings += 1
        for frame in made_up.frames:
            self._audience.tell(frame)
        self._end_in_ledger(prompt_id, made_up.outcome)

    def _end_in_ledger(self, prompt_id: str, outcome: Outcome) -> None:
        try:
            self._around.ledger.end(prompt_id, outcome)
        except Exception:  # a fault of somebody who watches the ledger must not cost the page its events
            logger.exception("the ending of prompt %s could not be noted", prompt_id)

    # -- the end

    def _maybe_leave(self) -> None:
        if self._visitors or not self._audience.is_empty or self.is_leaving:
            return
        if not self._has_served:
            self._leave()
        else:
            self._linger = self._around.tasks.start(self._leave_later(), name="linger")

    async def _leave_later(self) -> None:
        await self._around.clock.sleep(self._around.limits.linger_s)
        self._leave()

    def _leave(self) -> None:
        self._leaving.set()
        for link in self._links.values():
            link.dismiss()
        for farewell in self._farewells.values():
            farewell.cancel()
        self._maybe_empty()

    def _maybe_empty(self) -> None:
        is_in_use = self._links or self._visitors or not self._audience.is_empty
        if self.is_leaving and not is_in_use and not self._emptied.is_set():
            self._emptied.set()
            self._on_empty()
