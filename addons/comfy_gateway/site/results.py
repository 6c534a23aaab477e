"""``/history`` over all servers of a user, and over what the gateway keeps.

A server that does not answer, or forgot, does not hide what is kept of its prompts. For those who say no name a
prompt's own id is the key: the usual script asks ``/history/{id}`` and then ``/view?filename=…`` on new connections,
without an id, cookie or header, so its address is told which user's files those are.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import orjson
from aiohttp import web

from comfy_gateway.core import loose_json, site_contract
from comfy_gateway.core.files.files import files_in
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.prompts.visibility import OPEN, UNCLAIMED, Owner, Visibility, is_own
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.core.results import history
from comfy_gateway.core.results.history import Ended, Window
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.results.kept_entries import MAX_KEPT, KeptEntries, ended_ms
from comfy_gateway.service.results.user_servers import UserServers
from comfy_gateway.site.asker import Asker, BadOrder, bad_request, ids_in, order_in, told, told_bytes, written
from comfy_gateway.site.history_pages import AT_ONCE, PAGE_BYTES, Unanswered, entries_in, pages
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.servers import SMALL_BYTES, Said, Servers, off_the_loop, refusal_of

logger = logging.getLogger(__name__)

MOST_LARGE: Final = 2
"""Lists without a small bound that are put together at one time."""
MAX_LIST_BYTES: Final = 128 * 1024 * 1024
"""Of one server's entries in one answer; beyond it the oldest are left out."""
MANY: Final = 8
"""Entries that may hold so much that writing them keeps the event loop busy."""


@dataclass(frozen=True, slots=True)
class Found:
    """One prompt's entry in its shown form."""

    entry: Mapping[str, Any]
    source: Source


@dataclass(frozen=True, slots=True)
class _Line:
    """One entry of a server, and what the gateway knows of the prompt."""

    ended: Ended
    number: float | None
    sid: str | None
    ended_ms: float | None


class Results:
    """Answers for every route of ``/history``."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        own: UserServers,
        servers: Servers,
        files: Files,
        kept: KeptEntries,
        visibility: Visibility = OPEN,
        max_list_bytes: int = MAX_LIST_BYTES,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self._ledger = ledger
        self._own = own
        self._servers = servers
        self._files = files
        self._kept = kept
        self._visibility = visibility
        self._max_list_bytes = max_list_bytes
        self._page_bytes = page_bytes
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
        is_small = each.max_items is not None and each.max_items <= AT_ONCE
        async with contextlib.nullcontext() if is_small else self._large:
            found = await asyncio.gather(
                *(self._list_of(asker, backend, each) for backend in self._own.of(asker.user))
            )
            live = [one for one in found if not isinstance(one, Said)]
            if not live:
                return answer(refusal_of([one for one in found if isinstance(one, Said)]))
            shown = window.of(history.merge([*live, await self._kept_besides(asker, live, window)]))
            return told_bytes(
                orjson.dumps({ended.prompt_id: orjson.Fragment(ended.entry) for ended in shown})
            )

    async def _list_of(self, asker: Asker, backend: Backend, window: Window) -> list[Ended] | Said:
        """What the asker sees of a server's history, each entry written already; or what the server said instead."""
        shown: deque[Ended] = deque()
        size_bytes, is_cut = 0, False
        most = window.max_items if window.offset < 0 else None
        try:
            async for page in pages(self._servers, backend, window, page_bytes=self._page_bytes):
                lines = self._seen(asker, backend, page)
                for ended in await _in_parts(lines, backend.alias):
                    shown.append(ended)
                    size_bytes += len(ended.entry)
                while size_bytes > self._max_list_bytes or (most is not None and len(shown) > most):
                    is_cut = is_cut or size_bytes > self._max_list_bytes
                    size_bytes -= len(shown.popleft().entry)
        except Unanswered as error:
            return error.said
        if is_cut:
            logger.warning("the history of %s is too large: only its newest entries are told", backend.id)
        return list(shown)

    def _seen(self, asker: Asker, backend: Backend, page: Iterable[Ended]) -> list[_Line]:
        """Those entries that the asker may see and has not taken out; what they say for the first time is learned."""
        lines = []
        for ended in page:
            # One on its way has its number already, and the server's own is nobody's business.
            record = self._ledger.find(ended.prompt_id) or self._ledger.reserved(ended.prompt_id)
            owner = _owner_of(asker, record, backend)
            is_listed = self._visibility.is_listed(asker.key, owner, backend.source)
            if record is None and is_listed:  # sent past the gateway
                number = history.number_of(ended.entry)
                if number is not None:
                    self._ledger.saw_number(number)
                lines.append(_Line(ended, None, None, ended.ended_ms))
            elif record is not None and is_listed and not _is_taken_out(asker, record):
                at_ms = ended_ms(record) or ended.ended_ms
                lines.append(_Line(ended, record.number, asker.sid_of(record), at_ms))
            if owner is not UNCLAIMED:
                self._files.seen(owner, backend, ended.entry.get("outputs"))
            elif not self._visibility.hides_others:
                self._files.seen(asker.key, backend, ended.entry.get("outputs"))
        return lines

    async def _kept_besides(
        self, asker: Asker, live: Sequence[Sequence[Ended]], window: Window
    ) -> list[Ended]:
        """What is kept of the asker's own prompts, in no server's list, and new enough to be asked for."""
        told_live = {ended.prompt_id for entries in live for ended in entries}
        is_of_newest = window.max_items is not None and window.offset < 0
        most = max(window.max_items or 0, 0) if is_of_newest else MAX_KEPT
        oldest_ms = None
        if is_of_newest and 0 < most <= len(told_live):
            oldest_ms = history.merge(live)[-most].ended_ms

        def is_missing(record: PromptRecord) -> bool:
            is_older = oldest_ms is not None and (ended_ms(record) or 0) < oldest_ms
            return record.prompt_id not in told_live and not is_older

        kept = await self._kept.read(asker.key, self._kept.missing(asker.key, is_missing), most=most)
        for ended in kept:
            record = self._ledger.find(ended.prompt_id)
            if record is not None:
                self._files.seen_kept(record.user_key, record.backend_id, ended.entry.get("outputs"))
        return await _in_parts([_Line(ended, None, None, ended.ended_ms) for ended in kept], None)

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
        may_read = self._visibility.opens_by_id(asker.key, record.user_key, self._own.source_of(record))
        return may_read and not _is_taken_out(asker, record)

    def unclaimed_on(self, asker: Asker) -> list[Backend]:
        """The servers that may be asked for a prompt which the gateway does not know."""
        return [
            backend
            for backend in self._own.of(asker.user)
            if self._visibility.opens_by_id(asker.key, _owner_of(asker, None, backend), backend.source)
        ]

    async def find(
        self, asker: Asker, prompt_id: str, record: PromptRecord | None
    ) -> tuple[Found | None, list[Said]]:
        """The entry as its server has it, else as it is kept; and what servers said."""
        if record is None:
            backends = self.unclaimed_on(asker)
        else:
            backend = self._own.of_record(record)
            backends = [] if backend is None else [backend]
        said = await self._servers.ask_all(backends, f"/history/{quote(prompt_id, safe='')}")
        for one in said:
            for ended in await entries_in(one) or ():
                if ended.prompt_id == prompt_id:
                    return self._found(asker, one.backend, ended, record), said
        kept = None if record is None else await self._kept.one(record)
        return (None if kept is None else Found(kept, Source.GATEWAY)), said

    def _found(self, asker: Asker, backend: Backend, ended: Ended, record: PromptRecord | None) -> Found:
        known = record or self._ledger.reserved(ended.prompt_id)
        number = sid = None
        if known is not None:
            number, sid = known.number, asker.sid_of(known)
        if record is not None:
            self._files.seen(record.user_key, backend, ended.entry.get("outputs"))
        shown = history.shown_entry(ended.entry, alias=backend.alias, number=number, sid=sid)
        return Found(shown, backend.source)

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
            orders = [(backend, self._clearing(asker, backend)) for backend in self._own.of(asker.user)]
            self._ledger.forget(asker.key)
            said += await self._servers.tell_all(orders, "/history")
        said += await self._delete(asker, ids)
        failed = [one for one in said if not one.is_ok]
        if failed and len(failed) == len(said):
            return answer(refusal_of(failed))
        return web.Response()

    def _clearing(self, asker: Asker, backend: Backend) -> bytes:
        """The order that clears what is the asker's on that server."""
        if backend.source is not Source.DUTY or not self._visibility.guards_others:
            return orjson.dumps({"clear": True})
        ended = [
            record.prompt_id
            for record in self._ledger.of_user(asker.key, backend_id=backend.id)
            if record.is_finished and not record.is_hidden
        ]
        return loose_json.write({"delete": ended})

    async def _delete(self, asker: Asker, ids: Iterable[str]) -> list[Said]:
        orders: dict[str, tuple[Backend, list[str]]] = {}
        for prompt_id in ids:
            record = await self._ledger.recall(prompt_id)
            touches = partial(self._visibility.may_touch, asker.key)
            if record is None:
                backends = [
                    backend
                    for backend in self._own.of(asker.user)
                    if touches(_owner_of(asker, None, backend), backend.source)
                ]
            elif touches(record.user_key, self._own.source_of(record)):
                backend = self._own.of_record(record)
                backends = [] if backend is None else [backend]
                if asker.user is None or is_own(asker.key, record.user_key):
                    self._ledger.forget(record.user_key, [prompt_id])
            else:
                continue
            for backend in backends:
                orders.setdefault(backend.id, (backend, []))[1].append(prompt_id)
        return await self._servers.tell_all(
            [(backend, loose_json.write({"delete": found})) for backend, found in orders.values()], "/history"
        )


MOST_ITEMS: Final = 2**31


def window_of(query: Mapping[str, str]) -> Window:
    """``max_items`` and ``offset`` of a query. Raises ValueError for what is no whole number."""
    said = {}
    for name in ("max_items", "offset"):
        try:
            # A list is never so long, and islice counts no further.
            said[name] = max(-MOST_ITEMS, min(int(query[name]), MOST_ITEMS)) if name in query else None
        except ValueError:
            raise ValueError(f"{name} must be a whole number.") from None
    offset = said["offset"]
    return Window(said["max_items"], -1 if offset is None else offset)


async def _in_parts(lines: Sequence[_Line], alias: str | None) -> list[Ended]:
    """The entries in their shown form, written; beside the event loop where there are many."""
    size_bytes = SMALL_BYTES if len(lines) > MANY else 0
    return await off_the_loop(size_bytes, partial(_shown, lines, alias))


def _shown(lines: Iterable[_Line], alias: str | None) -> list[Ended]:
    """``alias`` is None for entries that are in their shown form already."""
    shown = []
    for line in lines:
        entry = line.ended.entry
        if alias is not None:
            entry = history.shown_entry(entry, alias=alias, number=line.number, sid=line.sid)
        shown.append(Ended(line.ended.prompt_id, written(entry), line.ended_ms))
    return shown


def _owner_of(asker: Asker, record: PromptRecord | None, backend: Backend) -> Owner:
    """Whose entry it is on a server that the asker may ask: what a pod has is its user's."""
    if record is not None:
        return record.user_key
    return UNCLAIMED if backend.source is Source.DUTY else asker.key


def _is_taken_out(asker: Asker, record: PromptRecord) -> bool:
    """By its owner, for him and for who has only its id."""
    return record.is_hidden and (asker.user is None or is_own(asker.key, record.user_key))
