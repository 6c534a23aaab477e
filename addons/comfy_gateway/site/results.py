"""``/history`` over all servers of a user, and over what the gateway keeps.

A server that does not answer, or forgot, does not hide what is kept of its prompts. For those who say no name a
prompt's own id is the key: the usual script asks ``/history/{id}`` and then ``/view?filename=…`` on new connections,
without an id, cookie or header, so its address is told which user's files those are.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import orjson
from aiohttp import web

from comfy_gateway.core import history, loose_json, site_contract
from comfy_gateway.core.files import files_in
from comfy_gateway.core.history import About, Ended, Window
from comfy_gateway.core.making_up import lost_entry
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts import Outcome, PromptRecord
from comfy_gateway.core.upstream import Backend, Source
from comfy_gateway.core.visibility import is_listed, is_own, opens_by_id
from comfy_gateway.service.files import Files
from comfy_gateway.service.ledger import Ledger
from comfy_gateway.service.user_servers import UserServers
from comfy_gateway.site.asker import Asker, BadOrder, bad_request, ids_in, order_in, told, told_bytes, written
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.servers import Said, Servers, off_the_loop, refusal_of

logger = logging.getLogger(__name__)

MAX_KEPT: Final = 1_000
"""Kept entries in one list; a plain ComfyUI has lost them all with its last restart."""
FEWER: Final = 200
"""So many are asked for where the whole history of a server is too much to be taken in."""
MOST_NOTED: Final = 500
"""Of one list; the names in it are looked at on the event loop."""
LARGE_WINDOW: Final = 500
MOST_LARGE: Final = 2
"""Lists without a small bound that are put together at one time: each can take several hundred MB."""

Kept = Sequence[tuple[PromptRecord, dict[str, Any]]]


class Openable(Protocol):
    """What is asked of the vault here."""

    async def openable(self, user_key: str | None, entries: Kept) -> list[dict[str, Any]]:
        """The entries, each with only those files that open."""
        ...


class AllOpenable:
    """Implements ``Openable`` where no vault is."""

    async def openable(self, _user_key: str | None, entries: Kept) -> list[dict[str, Any]]:
        """As they came."""
        return [entry for _, entry in entries]


@dataclass(frozen=True, slots=True)
class Found:
    """One prompt's entry in its shown form."""

    entry: Mapping[str, Any]
    source: Source


class Results:
    """Answers for every route of ``/history``."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        own: UserServers,
        servers: Servers,
        files: Files,
        clock: Clock,
        openable: Openable | None = None,
    ) -> None:
        self._ledger = ledger
        self._own = own
        self._servers = servers
        self._files = files
        self._clock = clock
        self._openable = openable or AllOpenable()
        self._large = asyncio.Semaphore(MOST_LARGE)

    def routes(self) -> list[web.RouteDef]:
        """Where the hooks send what ComfyUI has under ``/history``."""
        path = site_contract.COMFY_PATH + "/history"
        return [
            web.get(path, self.get_list),
            web.post(path, self.post),
            web.get(path + "/{prompt_id}", self.get_one),
        ]

    async def get_list(self, request: web.Request) -> web.StreamResponse:
        """All entries that the asker sees, in the order in which they ended."""
        asker = Asker.of(request)
        try:
            window = window_of(request.query)
        except ValueError as error:
            return answer(bad_request(str(error)))
        each = window.of_each()
        is_small = each.max_items is not None and each.max_items <= LARGE_WINDOW
        async with contextlib.nullcontext() if is_small else self._large:
            said = await self._servers.ask_all(self._own.of(asker.user), "/history" + each.query())
            said = await asyncio.gather(*(self._less(one) for one in said))
            size_bytes = sum(len(one.body) for one in said)
            lists = await off_the_loop(size_bytes, lambda: [read_list(one) for one in said])
            if all(one is None for one in lists):
                return answer(refusal_of(said))
            live = [
                self._seen(asker, one.backend, entries)
                for one, entries in zip(said, lists, strict=True)
                if entries is not None
            ]
            told_live = {ended.prompt_id for entries in live for ended in entries}
            kept = await self.kept_besides(
                asker, lambda record: record.prompt_id not in told_live, most=window.most(MAX_KEPT)
            )
            known = self._about(asker, live)
            shown = await off_the_loop(
                size_bytes, lambda: window.of(history.merge([*_timed(live, known), kept]))
            )
            self._learn(asker, shown, [one.backend for one in said])
            body = await off_the_loop(size_bytes, lambda: written(history.told(shown, known)))
            return told_bytes(body)

    async def get_one(self, request: web.Request) -> web.StreamResponse:
        """The entry of one prompt, or nothing, as ComfyUI answers for one that it does not know."""
        asker, prompt_id = Asker.of(request), request.match_info["prompt_id"]
        record = await self._ledger.recall(prompt_id)
        if record is not None and not self.is_open(asker, record):
            return told({})
        found, said = await self.find(asker, prompt_id, record)
        if found is None:
            is_unanswered = bool(said) and not any(one.is_ok for one in said)
            return answer(refusal_of(said)) if is_unanswered else told({})
        if asker.user is None and record is not None:
            # They will ask for the pictures next, and say no name then either.
            for file in files_in(found.entry.get("outputs")):
                self._files.tell([asker.peer], record.user_key, file)
        return told({prompt_id: found.entry}, source=found.source)

    def is_open(self, asker: Asker, record: PromptRecord) -> bool:
        """Whether the asker may read this prompt, and has not taken it out of the history."""
        may_read = opens_by_id(asker.key, record.user_key, self._own.source_of(record))
        is_hidden = record.is_hidden and (asker.user is None or is_own(asker.key, record.user_key))
        return may_read and not is_hidden

    async def find(
        self, asker: Asker, prompt_id: str, record: PromptRecord | None
    ) -> tuple[Found | None, list[Said]]:
        """The entry as its server has it, else as it is kept; and what servers said."""
        backends = self._own.of(asker.user)
        if record is not None:
            backend = self._own.of_record(record)
            backends = [] if backend is None else [backend]
        said = await self._servers.ask_all(backends, f"/history/{quote(prompt_id, safe='')}")
        for one in said:
            for entry in (ended.entry for ended in read_list(one) or () if ended.prompt_id == prompt_id):
                if record is not None:
                    self._files.seen(record.user_key, one.backend, entry.get("outputs"))
                number = None if record is None else record.number
                sid = None if record is None else asker.sid_of(record)
                shown = history.shown_entry(entry, alias=one.backend.alias, number=number, sid=sid)
                return Found(shown, one.backend.source), said
        return await self._kept(prompt_id, record), said

    async def _kept(self, prompt_id: str, record: PromptRecord | None) -> Found | None:
        if record is None or not record.is_finished:
            return None
        entry = await self._ledger.entry(prompt_id)
        if entry is not None:
            [entry] = await self._openable.openable(record.user_key, [(record, entry)])
            return Found(entry, Source.GATEWAY)
        if record.outcome is not Outcome.LOST:
            return None
        ended_at = record.ended_at or self._clock.now()
        number = history.plain_number(record.number)
        return Found(lost_entry(prompt_id, number, {}, now_ms=int(_ms(ended_at))), Source.GATEWAY)

    async def post(self, request: web.Request) -> web.StreamResponse:
        """``{"clear": true}`` and ``{"delete": [ids]}``, on the servers that have them and in what is kept."""
        asker = Asker.of(request)
        try:
            order = await order_in(request)
            ids = ids_in(order, "delete")
        except BadOrder as error:
            return answer(error.refusal)
        said: list[Said] = []
        if order.get("clear"):
            self._ledger.forget(asker.key)
            clear = orjson.dumps({"clear": True})
            said += await self._servers.tell_all(
                [(backend, clear) for backend in self._own.of(asker.user)], "/history"
            )
        said += await self._delete(asker, ids)
        failed = [one for one in said if not one.is_ok]
        if failed and len(failed) == len(said):
            return answer(refusal_of(failed))
        return web.Response()

    async def _delete(self, asker: Asker, ids: Iterable[str]) -> list[Said]:
        orders: dict[str, tuple[Backend, list[str]]] = {}
        for prompt_id in ids:
            record = await self._ledger.recall(prompt_id)
            if record is None:
                backends = self._own.of(asker.user)
            elif opens_by_id(asker.key, record.user_key, self._own.source_of(record)):
                backend = self._own.of_record(record)
                backends = [] if backend is None else [backend]
                if asker.user is None or is_own(asker.key, record.user_key):
                    self._ledger.forget(record.user_key, [prompt_id])
            else:
                continue
            for backend in backends:
                orders.setdefault(backend.id, (backend, []))[1].append(prompt_id)
        return await self._servers.tell_all(
            [(backend, orjson.dumps({"delete": found})) for backend, found in orders.values()], "/history"
        )

    async def kept_besides(
        self, asker: Asker, is_missing: Callable[[PromptRecord], bool], *, most: int
    ) -> list[Ended]:
        """What is kept of those of the asker's own prompts that no server tells of; what ended last stands last.

        ``is_missing`` says it of prompts that have ended. The database is not asked when there is none.
        """
        own = [record for record in self._ledger.of_user(asker.key) if _may_be_listed(record)]
        if most < 1 or not any(is_missing(record) for record in own):
            return []
        pairs = await self._ledger.entries(asker.key, limit=most)
        lost = self._lost_without_entry(own, {record.prompt_id for record, _ in pairs})
        missing = [pair for pair in (*pairs, *lost) if is_missing(pair[0])]
        missing.sort(key=lambda pair: (_ended_ms(pair[0]) or 0, pair[0].position))
        entries = await self._openable.openable(asker.key, missing)
        return [
            Ended(record.prompt_id, entry, _ended_ms(record))
            for (record, _), entry in zip(missing, entries, strict=True)
        ]

    def _lost_without_entry(
        self, own: Iterable[PromptRecord], with_entry: set[str]
    ) -> list[tuple[PromptRecord, dict[str, Any]]]:
        return [
            (
                record,
                lost_entry(
                    record.prompt_id,
                    history.plain_number(record.number),
                    {},
                    now_ms=int(_ended_ms(record) or 0),
                ),
            )
            for record in own
            if record.outcome is Outcome.LOST and record.prompt_id not in with_entry
        ][-MAX_KEPT:]

    async def _less(self, said: Said) -> Said:
        if not said.is_too_much:
            return said
        logger.warning("the history of %s is too large: only its newest entries are told", said.backend.id)
        return await self._servers.ask(said.backend, f"/history?max_items={FEWER}")

    def _seen(self, asker: Asker, backend: Backend, entries: Sequence[Ended]) -> list[Ended]:
        """Those that the asker may see and has not taken out."""
        return [
            ended for ended in entries if self._is_shown(asker, backend, self._ledger.find(ended.prompt_id))
        ]

    def _is_shown(self, asker: Asker, backend: Backend, record: PromptRecord | None) -> bool:
        if record is None:
            return True  # sent past the gateway; a pod's are its user's
        if record.is_hidden and is_own(asker.key, record.user_key):
            return False
        return is_listed(asker.key, record.user_key, backend.source)

    def _about(self, asker: Asker, live: Iterable[Iterable[Ended]]) -> dict[str, About]:
        known = {}
        for entries in live:
            for ended in entries:
                record = self._ledger.find(ended.prompt_id)
                if record is not None:
                    known[ended.prompt_id] = About(record.number, asker.sid_of(record), _ended_ms(record))
        return known

    def _learn(self, asker: Asker, shown: Sequence[Ended], backends: Iterable[Backend]) -> None:
        """Numbers and names that this gateway has not heard before: after its restart above all."""
        by_alias = {backend.alias: backend for backend in backends}
        for ended in shown[-MOST_NOTED:]:
            record = self._ledger.find(ended.prompt_id)
            number = history.number_of(ended.entry)
            if record is None and number is not None:
                self._ledger.saw_number(number)
            outputs = ended.entry.get("outputs")
            if ended.alias is not None:
                owner = asker.key if record is None else record.user_key
                self._files.seen(owner, by_alias[ended.alias], outputs)
            elif record is not None:
                self._files.seen_kept(record.user_key, record.backend_id, outputs)


def window_of(query: Mapping[str, str]) -> Window:
    """``max_items`` and ``offset`` of a query. Raises ValueError for what is no whole number."""
    said = {}
    for name in ("max_items", "offset"):
        try:
            said[name] = int(query[name]) if name in query else None
        except ValueError:
            raise ValueError(f"{name} must be a whole number.") from None
    offset = said["offset"]
    return Window(said["max_items"], -1 if offset is None else offset)


def read_list(said: Said) -> list[Ended] | None:
    """The entries in an answer of ``/history``, or None where it is no usable one."""
    if not said.is_ok:
        return None
    try:
        found = history.read_entries(loose_json.read(said.body))
        return [
            Ended(prompt_id, entry, history.ended_ms(entry), alias=said.backend.alias)
            for prompt_id, entry in found
        ]
    except ValueError:
        logger.warning("the history of %s has an unknown shape", said.backend.id)
        return None


def _timed(live: Iterable[Iterable[Ended]], known: Mapping[str, About]) -> list[list[Ended]]:
    """With the moments of our own clock, where we have them: every server has another."""
    return [
        [
            Ended(
                ended.prompt_id, ended.entry, known[ended.prompt_id].ended_ms or ended.ended_ms, ended.alias
            )
            if ended.prompt_id in known
            else ended
            for ended in entries
        ]
        for entries in live
    ]


def _may_be_listed(record: PromptRecord) -> bool:
    """Whether a history could hold it: what was taken out of the queue is in none."""
    was_taken_out = record.outcome is Outcome.INTERRUPTED and record.started_at is None
    return record.is_finished and not record.is_hidden and not was_taken_out


def _ended_ms(record: PromptRecord) -> float | None:
    return None if record.ended_at is None else _ms(record.ended_at)


def _ms(moment: datetime) -> float:
    return moment.timestamp() * 1000
