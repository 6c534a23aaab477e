"""Everything that belongs to one socket id of one user: its audience, and the servers that it is told from.

* There is one upstream socket to the user's current backend, and one to each other backend from which
  something is still to come.
* On a move the new socket is opened first; the old one stays until nothing is to come from there.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from aiohttp import WSCloseCode

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.events import frames, merge
from comfy_gateway.core.events.frames import Frame, Message
from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Fates
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.core.results.queue_merge import remaining_for
from comfy_gateway.site.relay.audience import Audience
from comfy_gateway.site.relay.client import ClientSocket
from comfy_gateway.site.relay.link import Link, Reached
from comfy_gateway.site.relay.surroundings import Surroundings
from comfy_gateway.site.relay.telling import Telling

logger = logging.getLogger(__name__)


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
        *,
        unheard: Collection[str] = (),
    ) -> None:
        """``unheard``: what ``unheard()`` of the channel before this one said, if there was one."""
        self._user = user
        self._around = around
        self._space = around.spaces.own(user)
        self._on_empty = on_empty
        self._path = "/ws?" + urlencode([("clientId", upstream_sid(around.keys, user, sid)), *query])
        user_key = user.key if user is not None else None
        self._telling = Telling(
            self,
            user_key=user_key,
            ledger=around.ledger,
            files=around.files,
            rescuer=around.rescuer,
            clock=around.clock,
            stats=around.stats,
            is_heard=self._is_heard,
            end_later=self._end_later,
            visibility=around.visibility,
        )
        self._audience = Audience(sid, self._telling.running, around.limits, around.stats, around.clock)
        self._introduction: Frame | None = None
        self._links: dict[str, Link] = {}
        self._farewells: dict[str, asyncio.Task[None]] = {}
        self._expected: dict[str, tuple[Backend, float]] = {}
        """Servers that a prompt of ours is on its way to, and until when that is believed."""
        self._endings: dict[str, asyncio.Task[None]] = {}
        """By prompt, what makes up its end."""
        self._stuck_to: Backend | None = None
        self._visitors = 0
        self._has_served = False
        self._linger: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._emptied = asyncio.Event()
        for record in around.ledger.unfinished(user=user, sid=sid):
            if record.user_key == user_key:
                self._telling.catch_up(record)
        for prompt_id in unheard:
            ended = around.ledger.find(prompt_id)
            if ended is not None and ended.is_finished and (ended.user_key, ended.sid) == (user_key, sid):
                self._telling.catch_up(ended)

    # -- clients

    @property
    def is_leaving(self) -> bool:
        """Whether it takes nobody in any more."""
        return self._leaving.is_set()

    def unheard(self) -> set[str]:
        """Prompts whose end no client is known to have heard."""
        return self._audience.unheard() | set(self._telling.open_prompts())

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

    async def reached(self, backend: Backend | None = None) -> Reached:
        """OPEN when the socket to that backend, or else to the current one, is open; otherwise how the attempt to open
        it ended.
        """
        while not self.is_leaving:
            self.reconcile()
            wanted = backend or self._current
            link = self._links.get(wanted.id)
            if link is None:
                return Reached.DISMISSED  # the time for which it was expected is over
            reached = await link.reached()
            if reached in {Reached.UNREACHABLE, Reached.LATE}:
                return reached
            if link.is_open and link.backend.id == (backend or self._current).id:
                return Reached.OPEN
        return Reached.DISMISSED

    def expect(self, backend: Backend | None) -> None:
        """A prompt is about to be sent to that backend, or else to the current one: keep its socket until the ledger
        knows of the prompt.
        """
        backend = backend or self._current
        until_s = self._around.clock.monotonic() + self._around.limits.expect_s
        is_new = backend.id not in self._expected
        self._expected[backend.id] = (backend, until_s)
        if is_new:
            self._around.tasks.start(self._forget_expected(backend.id), name=f"prompt for {backend.id}")
        self.reconcile()

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

    @property
    def user_of_pages(self) -> UserId | None:
        """Whose pages that know our own messages listen here, or None where none does."""
        return self._user if self._audience.has_pages else None

    def mark_pages(self) -> bool:
        """See Audience."""
        return self._audience.mark_pages()

    def tell_pages(self, frame: Frame) -> bool:
        """See Audience."""
        return self._audience.tell_pages(frame)

    def end(self) -> None:
        """Close all sockets, the clients' with 1001."""
        self._audience.end(WSCloseCode.GOING_AWAY)
        self._leave()

    # -- the ledger and the routes

    def note(self, record: PromptRecord) -> None:
        """The ledger has accepted, moved or ended a prompt of this user and socket id."""
        self._expected.pop(record.backend_id, None)
        self._telling.note(record)
        if self._around.visibility.hides_others:
            self._audience.tell_remaining(self._remaining(), is_news=False)
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
        if self._user is not None:
            return self._around.routes.current(self._user)
        # In a pool the best server for nobody in particular is another one at every look.
        if self._stuck_to is None or not self._is_heard(self._stuck_to.id):
            self._stuck_to = self._around.routes.current(None)
        return self._stuck_to

    def _needed(self) -> dict[str, Backend]:
        current = self._current
        needed = {current.id: current} | {backend.id: backend for backend, _ in self._expected.values()}
        for backend_id in self._telling.backends_needed() - needed.keys():
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

    async def _forget_expected(self, backend_id: str) -> None:
        while (expected := self._expected.get(backend_id)) is not None and not self.is_leaving:
            left_s = expected[1] - self._around.clock.monotonic()
            if left_s <= 0:
                del self._expected[backend_id]
                self.reconcile()
            else:
                await self._around.clock.sleep(left_s)

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
        link.is_first = not self._has_served
        self._telling.opened(link.backend)

    def untold(self, link: Link) -> Sequence[str]:
        """See LinkOwner."""
        return self._telling.untold(link.backend)

    def has_missed(self, link: Link, message: Message | None) -> bool:
        """See LinkOwner."""
        return self._telling.has_missed(link.backend, message)

    def tell_missed(self, link: Link, message: Message, entry: Mapping[str, Any] | None) -> None:
        """See LinkOwner."""
        self._telling.tell_missed(link.backend, message, entry)

    def link_cut(self, link: Link) -> None:
        """See LinkOwner."""
        self._telling.cut(link.backend)
        self.reconcile()

    def wants_again(self, link: Link, failures: int) -> bool:
        """See LinkOwner."""
        if self._user is not None and link.backend.source is Source.PRIVATE:
            self._around.nudge(self._user)
        if not link.is_needed:
            return False
        is_routed = self._around.routes.by_id(self._user, link.backend.id) is not None
        return is_routed or failures < self._around.limits.lost_tries

    def link_ended(self, link: Link, *, was_lost: bool) -> None:
        """See LinkOwner."""
        del self._links[link.backend.id]
        farewell = self._farewells.pop(link.backend.id, None)
        if farewell is not None:
            farewell.cancel()
        self._audience.tell_remaining(self._remaining(), is_news=was_lost)
        self.reconcile()
        self._maybe_empty()

    def link_heard(self, link: Link, frame: Frame, message: Message | None) -> None:
        """See LinkOwner."""
        if message is not None and message.kind == "status":
            link.queue_remaining = merge.read_queue_remaining(message.data)
            is_greeting = "sid" in message.data
            self._audience.tell_status(message, self._remaining(), is_greeting=is_greeting)
        elif message is not None and message.kind == "feature_flags" and link.is_awaiting_features:
            link.is_awaiting_features = False
            self._audience.tell_features(frame, is_current=link.backend.id == self._current.id)
        else:
            self._telling.hear(link.backend, frame, message, is_known=not link.is_first)
            if message is not None and message.is_release:
                self.reconcile()

    def tell_fates(self, link: Link, fates: Fates) -> bool:
        """See LinkOwner."""
        has_told = self._telling.tell_fates(link.backend, fates)
        self.reconcile()
        return has_told

    # -- endings that no socket tells

    def _end_later(self, prompt_id: str) -> None:
        if prompt_id not in self._endings and not self.is_leaving:
            ending = self._around.tasks.start(self._end(prompt_id), name=f"the end of {prompt_id}")
            if not ending.done():
                self._endings[prompt_id] = ending

    async def _end(self, prompt_id: str) -> None:
        """Tell an ending that the ledger knows, unless the server's own words come within the grace."""
        try:
            backend_id = self._telling.backend_of(prompt_id)
            link = self._links.get(backend_id or "")
            is_heard = link is not None and link.is_open
            if is_heard:
                await self._around.clock.sleep(self._around.limits.ending_grace_s)
            entry = await self._entry(prompt_id, backend_id)
            is_told = self._telling.make_up(prompt_id, entry)
        finally:
            self._endings.pop(prompt_id, None)
        if is_told and is_heard and entry is not None and link is not None:
            logger.warning("the socket to %s hears nothing and is opened again", link.backend.id)
            link.renew()
        self.reconcile()

    async def _entry(self, prompt_id: str, backend_id: str | None) -> Mapping[str, Any] | None:
        """From where it is kept, or from the server; None when neither has it in time."""
        backend = self._around.routes.by_id(self._user, backend_id or "")
        try:
            async with asyncio.timeout(self._around.limits.entry_timeout_s):
                kept = await self._around.ledger.entry(prompt_id)
                if kept is not None or backend is None:
                    return kept
                entry = await self._around.server.entry(backend, prompt_id)
        except (GatewayError, TimeoutError) as error:
            logger.info("prompt %s is told without its outputs: %s", prompt_id, str(error) or "too late")
            return None
        return None if entry is None else self._telling.shown(backend, entry)

    # -- what the audience is told

    @property
    def is_empty(self) -> bool:
        """See Listeners."""
        return self._audience.is_empty

    def tell(self, frame: Frame, *, result_of: str | None = None) -> None:
        """See Listeners."""
        if frame.is_text:
            frame = replace(frame, payload=self._space.shown(frame.payload))
        self._audience.tell(frame, result_of=result_of)

    def _is_heard(self, backend_id: str) -> bool:
        link = self._links.get(backend_id)
        return link is not None and link.is_open

    def _remaining(self) -> int | None:
        return merge.total_queue_remaining(self._count_on(link) for link in self._links.values())

    def _count_on(self, link: Link) -> int | None:
        """What that server has said is for everybody; where others are hidden it is what this user waits for."""
        is_shared = link.backend.source is Source.DUTY and self._around.visibility.hides_others
        if not is_shared or link.queue_remaining is None:
            return link.queue_remaining
        unfinished = self._around.ledger.unfinished(backend_id=link.backend.id)
        return remaining_for(
            self._user.key if self._user is not None else None, unfinished, self._around.order_of
        )

    def _introduce(self, frame: Frame) -> None:
        """Sent now to the servers that had none, and first of all to every later one."""
        is_known = self._introduction is not None
        self._introduction = frame
        for link in () if is_known else self._links.values():
            if link.is_open:
                link.is_awaiting_features = True
                link.send(frame)

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
        for task in (*self._farewells.values(), *self._endings.values()):
            task.cancel()
        self._maybe_empty()

    def _maybe_empty(self) -> None:
        is_in_use = self._links or self._visitors or not self._audience.is_empty
        if self.is_leaving and not is_in_use and not self._emptied.is_set():
            self._emptied.set()
            self._on_empty()
