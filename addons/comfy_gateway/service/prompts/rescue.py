"""Prompts whose server is gone or has forgotten them are submitted once more, under the same id.

Who waits for such a prompt sees one ending: that of the second run, or an error where there cannot be one.

A prompt that is neither in a server's queue nor in its history was either lost by a restart, or taken out by
somebody. Deletions that pass the gateway are in the ledger; a shared server can also be used without it. There the
witness decides: a server that was there all the time has lost nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Protocol

from comfy_gateway.core.errors import BackendUnavailable, PromptRefused, StoreUnavailable
from comfy_gateway.core.events import making_up
from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.inputs.refusals import INPUTS_UNKNOWN
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.session import PODLESS, Event, Session
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, ComfyServer
from comfy_gateway.core.prompts.body import PromptBody
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.prompts.turns import Turns
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

MOST_REPLAYS: Final = 1
"""A prompt that brings its server down would otherwise bring down all of them."""
MOST_BROKEN_REPLAYS: Final = 5
"""With those that the end of the gateway broke off, as far as is known before a server had the prompt."""
TRY_FOR_S: Final = 900.0
"""How long the server that is to run a prompt again is waited for."""
FIRST_PAUSE_S: Final = 1.0
SOCKET_WAIT_S: Final = 5.0
MOST_PAUSE_S: Final = 15.0


class Witness(Protocol):
    """Knows for how long a shared server has been up without a break."""

    def is_unbroken_since(self, backend_id: str, when: datetime) -> bool:
        """Whether the server has certainly not restarted since that UTC time."""
        ...


class Placement(Protocol):
    """Chooses the server of a prompt."""

    def backend_for(self, user: UserId | None, document: dict[str, Any]) -> Backend:
        """Where this prompt can run now."""
        ...


class Inputs(Protocol):
    """Brings a prompt's input files to its server."""

    async def carry(
        self, user: UserId | None, document: dict[str, Any], backend: Backend
    ) -> Mapping[str, Any]:
        """The prompt as that server must be told it. Raises PromptRefused."""
        ...


class Relay(Protocol):
    """Has the sockets of clients."""

    async def is_listening(
        self, user: UserId | None, sid: str, *, timeout_s: float, backend: Backend | None = None
    ) -> bool:
        """Wait until events of a prompt sent now to that backend would be heard."""
        ...


class Rescue:
    """Decides what becomes of prompts that their server has lost. Everything but the replay itself is synchronous."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        routes: Routes,
        comfy: ComfyServer,
        witness: Witness,
        placement: Placement,
        inputs: Inputs,
        keys: Keys,
        clock: Clock,
        tasks: Tasks,
        turns: Turns | None = None,
        try_for_s: float = TRY_FOR_S,
    ) -> None:
        self._ledger = ledger
        self._routes = routes
        self._comfy = comfy
        self._witness = witness
        self._placement = placement
        self._inputs = inputs
        self._keys = keys
        self._clock = clock
        self._tasks = tasks
        self._turns = turns or Turns(ledger=ledger, comfy=comfy, is_fair=False)
        self._try_for_s = try_for_s
        self._relay: Relay | None = None
        self._under_way: set[str] = set()
        self._ran_again: set[str] = set()
        """Unfinished prompts whose replay a server has taken since our start."""

    def wait_for(self, relay: Relay) -> None:
        """Have replays wait until they would be heard. The relay in its turn tells what servers have forgotten."""
        self._relay = relay

    def session_moved(self, before: Session, after: Session, _event: Event) -> None:
        """A watcher of sessions: what has not ended when a pod is given up will not end there."""
        if after.state in PODLESS and before.pod is not None:
            self.backend_died(before.user, before.pod.name)

    def backend_died(self, user: UserId | None, backend_id: str) -> None:
        """The server will never answer again: everything unfinished there is lost to it."""
        for record in self._ledger.unfinished(user=user, backend_id=backend_id):
            self._replay(record)

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        """A living server has the prompt neither in its queue nor in its history. May be said any number of times."""
        record = self._ledger.find(prompt_id)
        if record is None or record.is_finished or record.backend_id != backend_id:
            return
        if prompt_id in self._under_way:
            return  # on its way there
        if self._is_shared(record) and self._witness.is_unbroken_since(backend_id, record.accepted_at):
            self._ledger.end(prompt_id, Outcome.INTERRUPTED)
        else:
            self._replay(record)

    def _is_shared(self, record: PromptRecord) -> bool:
        backend = self._routes.by_id(_user_of(record), record.backend_id)
        return backend is not None and backend.source is Source.DUTY

    def _replay(self, record: PromptRecord) -> None:
        if record.prompt_id not in self._under_way:
            self._under_way.add(record.prompt_id)
            self._tasks.start(self._run_again(record), name=f"replay of {record.prompt_id}")

    async def _run_again(self, record: PromptRecord) -> None:
        body: PromptBody | None = None
        try:
            body = await self._body(record.prompt_id)
            if body is None:
                why_not: str | None = "the gateway does not have it any more"
            elif self._has_had_its_replay(record):
                why_not = None if await self._is_there(record) else "it was lost for the second time"
            else:
                why_not = await self._submit(record, body)
        except PromptRefused as refused:
            why_not = refused.refusal.message
        except Exception as error:  # the task's edge: whoever waits must hear something
            logger.exception("the replay of prompt %s failed", record.prompt_id)
            why_not = type(error).__name__
        finally:
            self._under_way.discard(record.prompt_id)
        if why_not is not None:
            self._lose(record, body, why_not)

    async def _body(self, prompt_id: str) -> PromptBody | None:
        """Waits for a database that does not answer. Raises PromptRefused for a body that cannot be read."""
        deadline_s = self._clock.monotonic() + self._try_for_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                body = await self._ledger.body(prompt_id)
            except StoreUnavailable as error:
                if self._clock.monotonic() >= deadline_s:
                    return None
                logger.info("the replay of prompt %s waits for the database: %s", prompt_id, error)
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
            else:
                return None if body is None else PromptBody.parse(body)

    def _has_had_its_replay(self, record: PromptRecord) -> bool:
        """A replay is counted before it is sent. If the gateway ended in between, that count was for nothing."""
        if record.replays < MOST_REPLAYS:
            return False
        was_taken = record.prompt_id in self._ran_again or record.started_at is not None
        return was_taken or record.replays >= MOST_BROKEN_REPLAYS

    async def _is_there(self, record: PromptRecord) -> bool:
        """Whether its server has the prompt: who said that it does not may have asked before the replay arrived."""
        backend = self._routes.by_id(_user_of(record), record.backend_id)
        if backend is None:
            return False
        try:
            fates = await self._comfy.fates(backend, [record.prompt_id])
        except BackendUnavailable:
            return False
        return fates.get(record.prompt_id, True) is not None

    async def _submit(self, record: PromptRecord, body: PromptBody) -> str | None:
        """Submit until a server has it. Returns why that is impossible, or None when it has it or nobody wants it."""
        user = _user_of(record)
        deadline_s = self._clock.monotonic() + self._try_for_s
        pause_s = FIRST_PAUSE_S
        before: Backend | None = None
        while self._is_wanted(record.prompt_id):
            target = self._placement.backend_for(user, body.document)
            if before is None or before.id != target.id:
                before = target
                # First, so that the relay listens there before the first event.
                self._ledger.move(record.prompt_id, target.id)
                self._turns.place_again(record, target)
            try:
                answer = await self._try(record, body, target, user)
            except BackendUnavailable as error:
                if self._clock.monotonic() >= deadline_s:
                    return f"no server took it for {self._try_for_s:.0f} s"
                logger.info("prompt %s waits for %s: %s", record.prompt_id, target.id, error)
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
                continue
            if answer is None:
                self._ran_again = {id_ for id_ in self._ran_again if self._is_wanted(id_)}
                self._ran_again.add(record.prompt_id)
                logger.warning("prompt %s was submitted again to %s", record.prompt_id, target.id)
                await self._take_back_unwanted(record.prompt_id, target)
            return answer
        return None

    async def _try(
        self, record: PromptRecord, body: PromptBody, target: Backend, user: UserId | None
    ) -> str | None:
        """None when the server has the prompt, else its words against it. Raises BackendUnavailable, PromptRefused."""
        fates = await self._comfy.fates(target, [record.prompt_id])
        if fates.get(record.prompt_id, True) is not None:
            return None  # an earlier try, of which no answer came, has arrived
        try:
            document = await self._inputs.carry(user, body.document, target)
        except PromptRefused as refused:
            if refused.refusal == INPUTS_UNKNOWN:  # a server that has just come back will tell
                raise BackendUnavailable(refused.refusal.message) from refused
            raise
        sid = upstream_sid(self._keys, user, record.sid)
        addressed = replace(body, document=dict(document)).addressed(record.prompt_id, sid)
        if self._turns.has_number(record.prompt_id):
            addressed = addressed.numbered(self._turns.number(record.prompt_id))
        if self._relay is not None and record.sid:
            # As for any prompt: what comes before its socket there is open is lost but for its ending.
            await self._relay.is_listening(user, record.sid, timeout_s=SOCKET_WAIT_S, backend=target)
        answer = await self._comfy.post_prompt(target, addressed.write())
        if answer.prompt_id == record.prompt_id:
            self._turns.answered(record.prompt_id, answer.document.get("number"))
            return None
        return _complaint(answer.document)

    def _is_wanted(self, prompt_id: str) -> bool:
        record = self._ledger.find(prompt_id)
        return record is not None and not record.is_finished

    async def _take_back_unwanted(self, prompt_id: str, target: Backend) -> None:
        """Its user has deleted it while it was on its way."""
        if self._is_wanted(prompt_id):
            return
        try:
            await self._comfy.delete_queued(target, [prompt_id])
            await self._comfy.interrupt(target, prompt_id)
        except BackendUnavailable as error:
            logger.info("prompt %s could not be taken back: %s", prompt_id, error)

    def _lose(self, record: PromptRecord, body: PromptBody | None, why: str) -> None:
        logger.warning("prompt %s of %s is lost: %s", record.prompt_id, record.backend_id, why)
        document: Mapping[str, Any] = {} if body is None else body.document
        now_ms = int(self._clock.now().timestamp() * 1000)
        entry = making_up.lost_entry(record.prompt_id, record.number, document, now_ms=now_ms)
        if self._ledger.end(record.prompt_id, Outcome.LOST):
            self._ledger.keep_entry(record.prompt_id, entry)


def _user_of(record: PromptRecord) -> UserId | None:
    return None if record.user_key is None else UserId.from_key(record.user_key)


def _complaint(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    message = error.get("message") if isinstance(error, Mapping) else None
    return message if isinstance(message, str) else "the server refuses it"
