"""The way of a prompt to a server: reserved, placed, its inputs brought, written down, sent, and concluded.

The hook sends it and hears the answer; everything else is here. Until the answer is known the id is held, so that
the same prompt that comes twice runs once, and whatever breaks off on the way leaves a doubt that is looked into
rather than a prompt that nobody knows.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from uuid import uuid4

import orjson

from comfy_gateway.core import loose_json
from comfy_gateway.core.errors import BackendUnavailable, PromptRefused
from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.money.profiles import wish_of
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, ComfyServer, PromptAnswer
from comfy_gateway.core.prompts.body import PromptBody
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.prompts.secrets_in_prompts import document_without_secrets, may_hold_secrets
from comfy_gateway.core.requests.refusals import (
    PROMPT_ID_TAKEN,
    PROMPT_ON_ITS_WAY,
    UPSTREAM_UNREACHABLE,
    Refusal,
    bad_prompt,
)
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.meters import Meters
from comfy_gateway.service.prompts.ledger import Foreign, InFlight, Ledger, New, Reserved, Same
from comfy_gateway.service.prompts.turns import Turns
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

SOCKET_WAIT_S: Final = 5.0
ANSWER_WAIT_S: Final = 60.0
"""How long a prompt that comes a second time waits for the answer to the first."""
LOOK_S: Final = 3.0
MOST_MOVES: Final = 4
"""A route that moves more often than this while a prompt is made ready is not followed further."""
HASHED_IN_A_THREAD_BYTES: Final = 1024 * 1024
OUTCOME_UNKNOWN: Final = frozenset({408, 500, 504, 524})
"""What a server or a proxy says that may have taken the prompt all the same."""


class Placement(Protocol):
    """Chooses servers. The documents are whole bodies of ``POST /prompt``."""

    def backend_for(self, user: UserId | None, document: Mapping[str, Any]) -> Backend:
        """Where this prompt is to run now."""
        ...

    def refused(self, user: UserId | None, backend: Backend) -> None:
        """That server has found the prompt invalid."""
        ...

    def only_on_pods(self, user: UserId, document: Mapping[str, Any]) -> str:
        """What duty lacks for this prompt and pods have, in words for the log; empty where a pod would not help."""
        ...

    def earns_pod(self, user: UserId, document: Mapping[str, Any]) -> bool:
        """Whether this prompt counts toward a pod."""
        ...


class Inputs(Protocol):
    """Brings a prompt's input files to its server."""

    async def carry(
        self, user: UserId | None, document: Mapping[str, Any], backend: Backend, *, peer: str = ""
    ) -> Mapping[str, Any]:
        """The body as that server can run it; the same object when nothing changes. Raises PromptRefused."""
        ...

    async def doubt(self, user: UserId | None, document: Mapping[str, Any], backend: Backend) -> bool:
        """After that server refused the prompt: whether it is worth to carry and send it once more."""
        ...

    def shown(self, user: UserId | None, data: bytes) -> bytes:
        """JSON of a server with the files as that user names them."""
        ...


class Relay(Protocol):
    """Has the sockets of clients."""

    async def is_listening(
        self, user: UserId | None, sid: str, *, timeout_s: float, backend: Backend | None = None
    ) -> bool:
        """Wait until events of a prompt sent now to that backend would be heard."""
        ...


@dataclass(slots=True)
class OnItsWay:
    """A prompt that is reserved and ready to be sent to ``backend``."""

    user: UserId | None
    sid: str
    """The client's own socket id."""
    record: PromptRecord
    body: PromptBody = field(repr=False)
    """With our ids, and the inputs as the client named them."""
    written: bytes = field(repr=False)
    """The body in writing."""
    stored: bytes = field(repr=False)
    """The same without secrets."""
    peer: str
    backend: Backend
    content: bytes = field(repr=False)
    """What is sent: the body with the inputs as the backend has them."""
    is_second_try: bool = False
    is_put_elsewhere: bool = False
    """On duty, though the user has a pod: it could not be made ready there."""
    sent_document: Mapping[str, Any] | None = field(default=None, repr=False)
    """``content``, but for the number."""

    @property
    def prompt_id(self) -> str:
        """Its id, until the server gives another one."""
        return self.record.prompt_id


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client is to be answered instead of what the server said."""

    status: int
    body: bytes
    prompt_id: str | None = None
    """Of an accepted prompt."""
    source: Source = Source.GATEWAY
    """Whose answer it is."""


class Submission:
    """Makes prompts ready and concludes them."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        routes: Routes,
        placement: Placement,
        inputs: Inputs,
        relay: Relay,
        comfy: ComfyServer,
        meters: Meters,
        bursts: Bursts,
        keys: Keys,
        clock: Clock,
        nudge: Callable[[UserId], None],
        turns: Turns | None = None,
        wait_of: Callable[[PromptRecord], float | None] = lambda _record: None,
        answer_wait_s: float = ANSWER_WAIT_S,
    ) -> None:
        """``nudge(user)`` has the user's pod looked at now; ``wait_of`` predicts how long a prompt waits on duty."""
        self._wait_of = wait_of
        self._ledger = ledger
        self._routes = routes
        self._placement = placement
        self._inputs = inputs
        self._relay = relay
        self._comfy = comfy
        self._meters = meters
        self._bursts = bursts
        self._keys = keys
        self._clock = clock
        self._nudge = nudge
        self._turns = turns or Turns(ledger=ledger, comfy=comfy, is_fair=False)
        self._answer_wait_s = answer_wait_s

    # -- before it is sent

    async def prepare(
        self, user: UserId | None, body: PromptBody, raw: bytes, *, peer: str = ""
    ) -> OnItsWay | Reply:
        """Make a prompt ready to be sent, or answer one that came before as it was answered then.

        ``raw`` is the body as it came. Raises PromptRefused. After OnItsWay, ``answered`` or ``unanswered`` has to be
        called.
        """
        sid = body.client_id or ""
        try:
            prompt_id = body.chosen_id() or str(uuid4())
            body = body.addressed(prompt_id, upstream_sid(self._keys, user, sid))
            written = body.write()
            stored = _without_secrets(body, written)
        except ValueError as error:
            raise PromptRefused(bad_prompt(str(error))) from None
        backend = self._placement.backend_for(user, body.document)
        await self._turns.learn(backend)
        record = PromptRecord(
            prompt_id, user.key if user is not None else None, sid, backend.id, accepted_at=self._clock.now()
        )
        way = OnItsWay(user, sid, record, body, written, stored, peer, backend, written)
        known = await self._reserve(way)
        if known is not None:
            return _stored_answer(known)
        try:
            position = self._ledger.next_number()
            way.record = replace(
                record,
                position=position,
                number=body.number_shown(position),
                body_sha256=await _sha256(raw),
            )
            self._turns.place(way.record, way.backend, is_new=True)
            known = await self._make_ready(way)
            if known is None:
                self._number(way)
        except BaseException:
            self._ledger.discard(prompt_id)
            raise
        return way if known is None else _stored_answer(known)

    async def _reserve(self, way: OnItsWay) -> PromptRecord | None:
        """Hold the id; returns the same user's prompt that was accepted under it before. Raises PromptRefused."""

        def accepted(record: PromptRecord) -> None:
            self._count(way, record)

        while True:
            reserved = self._ledger.reserve(way.record, accepted)
            if reserved == New():
                return None
            known = await self._known(reserved)
            if known is not None:
                return known

    async def _known(self, reserved: Reserved) -> PromptRecord | None:
        """The prompt that has the id, or None when it was refused and the id is free again. Raises PromptRefused."""
        match reserved:
            case Same(record):
                return record
            case InFlight(settled) if settled is not None:
                await asyncio.wait([settled], timeout=self._answer_wait_s)
                if settled.done():
                    return settled.result()
                raise PromptRefused(PROMPT_ON_ITS_WAY)
            case Foreign():
                raise PromptRefused(PROMPT_ID_TAKEN)
            case _:
                raise PromptRefused(PROMPT_ON_ITS_WAY)

    async def _make_ready(self, way: OnItsWay) -> PromptRecord | None:
        """Aim it at the user's server, again while that changes. Returns a prompt that the database knows instead."""
        for _ in range(MOST_MOVES):
            try:
                known = await self._aim(way)
            except PromptRefused as refused:
                if not self._may_go_elsewhere(way, refused):
                    raise
                continue
            if known is not None:
                return known
            backend = self._placement.backend_for(way.user, way.body.document)
            if way.is_put_elsewhere or backend.id == way.backend.id:
                break
            way.backend = backend  # the route has moved meanwhile
        return None

    def _may_go_elsewhere(self, way: OnItsWay, refused: PromptRefused) -> bool:
        """Whether the prompt is put elsewhere instead: duty takes what cannot be brought to a pod at this moment."""
        if way.backend.source is not Source.PRIVATE or refused.refusal.status != 503:
            return False
        logger.warning(
            "prompt %s goes to duty: %s: %s", way.prompt_id, way.backend.id, refused.refusal.message
        )
        if way.user is not None:
            self._nudge(way.user)
        way.backend, way.is_put_elsewhere = self._routes.duty(way.user), True
        return True

    async def _aim(self, way: OnItsWay) -> PromptRecord | None:
        """Bring its inputs to its backend, have its events heard from there, write it down. Raises PromptRefused."""
        document = await self._inputs.carry(way.user, way.body.document, way.backend, peer=way.peer)
        way.content, way.sent_document = way.written, document
        if document is not way.body.document:
            way.content = replace(way.body, document=dict(document)).write()
        if way.sid:
            # Its first events must not come before its socket on that server is open. A socket that cannot be
            # opened in time does not hold the prompt back: the relay makes up the ending.
            await self._relay.is_listening(way.user, way.sid, timeout_s=SOCKET_WAIT_S, backend=way.backend)
        way.record = replace(way.record, backend_id=way.backend.id)
        self._turns.place(way.record, way.backend)
        reserved = await self._ledger.write_down(way.record, way.written, stored_body=way.stored)
        return None if reserved == New() else await self._known(reserved)

    def _number(self, way: OnItsWay) -> None:
        """Its turn on a shared server, decided now that it is about to be sent."""
        if not self._turns.has_number(way.prompt_id) or not way.body.has_usable_number:
            return
        number = self._turns.number(way.prompt_id)
        if number is None and not way.body.is_ordered:
            return
        document = way.body.document if way.sent_document is None else dict(way.sent_document)
        way.content = replace(way.body, document=document).numbered(number).write()

    # -- after it was sent

    async def answered(self, way: OnItsWay, status: int, raw: bytes | None) -> Reply | None:
        """The server's answer is here, its body None when that was not taken in.

        Returns what the client is to hear, None for the answer as it is.
        """
        shown = None if raw is None else self._inputs.shown(way.user, raw)
        answer = _own_answer(status, shown)
        if answer is not None:
            reply = await self._conclude(way, answer)
            if reply is None and shown is not None and shown != raw:
                return Reply(status, shown, source=way.backend.source)
            return reply
        if way.backend.source is Source.PRIVATE and status not in OUTCOME_UNKNOWN and raw is not None:
            return await self._fail_over(way, status)
        if status >= 500 or status < 300 or status in OUTCOME_UNKNOWN:
            self._ledger.doubt(way.prompt_id)
        else:
            self._ledger.discard(way.prompt_id)
        return None

    def unanswered(self, way: OnItsWay, *, was_sent: bool) -> None:
        """No answer will come: the client or the server went away, or it took too long."""
        if was_sent:
            self._ledger.doubt(way.prompt_id)
        else:
            self._ledger.discard(way.prompt_id)

    async def _conclude(self, way: OnItsWay, answer: PromptAnswer) -> Reply | None:
        if answer.prompt_id is not None:
            self._turns.answered(way.prompt_id, answer.document.get("number"))
            errors = answer.document.get("node_errors")
            record = self._ledger.confirm(
                way.prompt_id,
                answered_id=answer.prompt_id,
                node_errors=errors if isinstance(errors, Mapping) else None,
            )
            return self._accepted(way, answer, record)
        if answer.status == 400 and way.user is not None and way.backend.source is Source.DUTY:
            missing = self._placement.only_on_pods(way.user, way.body.document)
            self._bursts.duty_lacks(way.user, missing, wish=wish_of(way.body.document))
        if not way.is_second_try and answer.status == 400:
            self._placement.refused(way.user, way.backend)
            if await self._inputs.doubt(way.user, way.body.document, way.backend):
                return await self._send_again(way)
        self._ledger.discard(way.prompt_id)
        if not way.is_second_try:
            return None
        return Reply(answer.status, loose_json.write(answer.document), source=way.backend.source)

    def _accepted(self, way: OnItsWay, answer: PromptAnswer, record: PromptRecord | None) -> Reply:
        if record is None:  # the ledger has let go of it
            told = {**answer.document, "number": way.record.number}
            return Reply(answer.status, loose_json.write(told), answer.prompt_id, way.backend.source)
        document = {**answer.document, "prompt_id": record.prompt_id, "number": record.number}
        return Reply(answer.status, loose_json.write(document), record.prompt_id, way.backend.source)

    async def _fail_over(self, way: OnItsWay, status: int) -> Reply | None:
        """What answered is not the pod's ComfyUI: the proxy before it says that it is gone. Duty takes the prompt."""
        logger.warning("prompt %s: %s answers %d without its ComfyUI", way.prompt_id, way.backend.id, status)
        if way.user is not None:
            self._nudge(way.user)
        if await self._is_there(way):
            record = self._ledger.confirm(way.prompt_id)
            answer = PromptAnswer(200, {"prompt_id": way.prompt_id, "number": 0, "node_errors": {}})
            return self._accepted(way, answer, record)
        way.backend = self._routes.duty(way.user)
        return await self._send_again(way)

    async def _is_there(self, way: OnItsWay) -> bool:
        """Whether the backend has the prompt although it did not say so."""
        try:
            async with asyncio.timeout(LOOK_S):
                fates = await self._comfy.fates(way.backend, [way.prompt_id])
        except (BackendUnavailable, TimeoutError):
            return False
        return fates.get(way.prompt_id, True) is not None

    async def _send_again(self, way: OnItsWay) -> Reply | None:
        """Send it ourselves, to its backend as it is now. The client is answered with what comes of that."""
        way.is_second_try = True
        try:
            known = await self._aim(way)
            if known is not None:
                return _stored_answer(known)
            self._number(way)
            answer = await self._comfy.post_prompt(way.backend, way.content)
        except PromptRefused as refused:
            self._ledger.discard(way.prompt_id)
            return _refusal(refused.refusal)
        except BackendUnavailable as error:
            logger.warning("prompt %s could not be sent to %s: %s", way.prompt_id, way.backend.id, error)
            self._ledger.doubt(way.prompt_id)
            return _refusal(UPSTREAM_UNREACHABLE)
        except BaseException:
            self._ledger.doubt(way.prompt_id)
            raise
        told = loose_json.write(answer.document)
        if (shown := self._inputs.shown(way.user, told)) != told:
            answer = replace(answer, document=loose_json.read(shown))
        return await self._conclude(way, answer)

    def _count(self, way: OnItsWay, record: PromptRecord) -> None:
        self._meters.prompt_accepted(way.backend.source)
        if way.user is not None:
            earns_pod = self._placement.earns_pod(way.user, way.body.document)
            self._bursts.prompt_accepted(
                way.user,
                earns_pod=earns_pod,
                wish=wish_of(way.body.document),
                wait_s=lambda: self._wait_of(record) if way.backend.source is Source.DUTY else None,
            )


def _own_answer(status: int, raw: bytes | None) -> PromptAnswer | None:
    """ComfyUI's own yes or no, or None for what somebody else says, or for what says neither."""
    try:
        document = loose_json.read(raw or b"")
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    answer = PromptAnswer(status, document)
    has_words = isinstance(document.get("error"), dict) or "node_errors" in document
    is_refusal = 400 <= status < 500 and has_words
    return answer if is_refusal or answer.prompt_id is not None else None


def _stored_answer(record: PromptRecord) -> Reply:
    document = {
        "prompt_id": record.prompt_id,
        "number": record.number,
        "node_errors": dict(record.node_errors),
    }
    return Reply(200, loose_json.write(document), record.prompt_id)


def _refusal(refusal: Refusal) -> Reply:
    return Reply(refusal.status, orjson.dumps(refusal.body()))


def _without_secrets(body: PromptBody, written: bytes) -> bytes:
    """The body in writing, without secrets; the very same bytes where there are none."""
    if not may_hold_secrets(written):
        return written
    document = document_without_secrets(body.document)
    return written if document is body.document else replace(body, document=dict(document)).write()


def recordable(raw: bytes) -> bytes:
    """What may be kept of a body that was not sent on. One that cannot be read is left out if it may hold a secret."""
    try:
        body = PromptBody.parse(raw)
        written = body.write()
        without = _without_secrets(body, written)
    except ValueError:
        return b"" if may_hold_secrets(raw) else raw
    return raw if without is written else without


def recorded(way: OnItsWay) -> bytes:
    """What may be kept of the body that was sent: its bytes, but for secrets."""
    return way.content if way.stored is way.written else way.stored


async def _sha256(raw: bytes) -> str:
    if len(raw) <= HASHED_IN_A_THREAD_BYTES:
        return hashlib.sha256(raw).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(raw).hexdigest())
