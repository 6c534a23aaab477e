"""``/queue`` and ``/interrupt`` over all servers of a user.

An action goes to the server that has the prompt. A server that does not answer does not hide what waits there: the
gateway knows it too.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Iterable
from typing import Any

from aiohttp import web

from comfy_gateway.core import loose_json, site_contract
from comfy_gateway.core.errors import BackendUnavailable, StoreUnavailable
from comfy_gateway.core.ports import ComfyServer
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.visibility import OPEN, UNCLAIMED, Owner, Visibility, is_own
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.core.results import history, queue_merge
from comfy_gateway.core.results.queue_merge import OrderOf, Queue, by_number
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.results.user_servers import UserServers
from comfy_gateway.site.asker import Asker, BadOrder, bad_request, ids_in, order_in, told_bytes, written
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.servers import Said, Servers, off_the_loop, refusal_of

logger = logging.getLogger(__name__)


class QueuePages:
    """Answers for what ComfyUI has under ``/queue`` and ``/interrupt``."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        own: UserServers,
        servers: Servers,
        comfy: ComfyServer,
        visibility: Visibility = OPEN,
        order_of: OrderOf = by_number,
    ) -> None:
        self._order_of = order_of
        self._ledger = ledger
        self._own = own
        self._servers = servers
        self._comfy = comfy
        self._visibility = visibility
        self._veil = secrets.token_bytes(16)

    def routes(self) -> list[web.RouteDef]:
        """Where the hooks send them."""
        return [
            web.get(site_contract.COMFY_PATH + "/queue", self.get),
            web.post(site_contract.COMFY_PATH + "/queue", self.post),
            web.post(site_contract.COMFY_PATH + "/interrupt", self.interrupt),
            web.get(site_contract.COMFY_PATH + "/prompt", self.count),
        ]

    async def get(self, request: web.Request) -> web.StreamResponse:
        """What runs and what waits on all servers of the asker, in one."""
        asker = Asker.of(request)
        said = await self._servers.ask_all(self._own.of(asker.user), "/queue")
        size_bytes = sum(len(one.body) for one in said)
        queues = await off_the_loop(size_bytes, lambda: [read_queue(one) for one in said])
        if all(queue is None for queue in queues):
            return answer(refusal_of(said))
        parts = []
        for one, queue in zip(said, queues, strict=True):
            parts.append(
                await self.known_of(asker, one.backend)
                if queue is None
                else self._shown(asker, one.backend, queue)
            )
        parts.append(await self._homeless(asker))
        return told_bytes(
            await off_the_loop(size_bytes, lambda: written(queue_merge.merge(parts).document()))
        )

    async def count(self, request: web.Request) -> web.StreamResponse:
        """``/prompt``: how much waits where the next prompt goes; of a server where others are hidden the asker's own,
        and what is ahead of it.
        """
        asker = Asker.of(request)
        said = await self._servers.ask(self._own.current(asker.user), "/prompt")
        document = _document(said.body if said.is_ok else None)
        if not isinstance(info := document.get("exec_info"), dict):
            return answer(refusal_of([said]))
        if said.backend.source is Source.DUTY and self._visibility.hides_others:
            unfinished = self._ledger.unfinished(backend_id=said.backend.id)
            remaining = queue_merge.remaining_for(asker.key, unfinished, self._order_of)
            document = {**document, "exec_info": {**info, "queue_remaining": remaining}}
        return told_bytes(written(document), source=said.backend.source)

    async def known_of(self, asker: Asker, backend: Backend) -> Queue:
        """What the gateway knows to run and wait on a server that does not answer."""
        unfinished = self._ledger.unfinished(backend_id=backend.id)
        shown = self._visibility
        seen = [one for one in unfinished if shown.is_listed(asker.key, one.user_key, backend.source)]
        queue = await self._items(asker, seen)
        for record in unfinished:
            if shown.has_place(asker.key, record.user_key, backend.source):
                part = queue.running if record.outcome is Outcome.RUNNING else queue.pending
                part.append(self._place(record.number, record.prompt_id))
        return queue

    async def _homeless(self, asker: Asker) -> Queue:
        """Prompts whose server is gone, while they are on their way to another."""
        unfinished = (record for record in self._ledger.unfinished() if is_own(asker.key, record.user_key))
        return await self._items(
            asker, (record for record in unfinished if self._own.of_record(record) is None)
        )

    async def _items(self, asker: Asker, records: Iterable[PromptRecord]) -> Queue:
        queue = Queue()
        for record in records:
            document = await self._body(record.prompt_id)
            graph, extra_data = document.get("prompt", {}), document.get("extra_data", {})
            item = [record.number, record.prompt_id, graph, extra_data, []]
            part = queue.running if record.outcome is Outcome.RUNNING else queue.pending
            part.append(history.shown_item(item, number=record.number, sid=asker.sid_of(record)))
        return queue

    async def _body(self, prompt_id: str) -> dict[str, Any]:
        try:
            return _document(await self._ledger.body(prompt_id))
        except StoreUnavailable:
            return {}

    def _shown(self, asker: Asker, backend: Backend, queue: Queue) -> Queue:
        if backend.source is Source.DUTY and self._visibility.hides_others:
            return self._between_places(asker, backend, queue)
        return Queue(
            self._shown_items(asker, backend, queue.running), self._shown_items(asker, backend, queue.pending)
        )

    def _between_places(self, asker: Asker, backend: Backend, queue: Queue) -> Queue:
        """The asker's own among places of others. Each place has a number that says where it is, and nothing else."""
        running = queue.running
        pending = sorted(queue.pending, key=lambda item: history.item_number(item) or 0)
        every = [*running, *pending]
        shown = [next(iter(self._shown_items(asker, backend, [item])), None) for item in every]
        own = {item[1] for item in every if is_own(asker.key, self._ledger.owner(item[1]))}
        numbers = queue_merge.places(
            [item[0] if item is not None and item[1] in own else None for item in shown]
        )
        told = [
            None if item is None else [history.plain_number(number), *item[1:]]
            for item, number in zip(shown, numbers, strict=True)
        ]
        split = len(running)
        return Queue(*([one for one in part if one is not None] for part in (told[:split], told[split:])))

    def _shown_items(self, asker: Asker, backend: Backend, items: Iterable[list[Any]]) -> list[list[Any]]:
        shown = []
        for item in items:
            record = self._ledger.find(item[1])
            owner = self.owner_of(asker, item[1], backend.source)
            known = record or self._ledger.reserved(item[1])
            number = item[0] if known is None else known.number
            if self._visibility.has_place(asker.key, owner, backend.source):
                shown.append(self._place(number, item[1]))
            elif record is None:
                shown.append(history.shown_item(item, number=number))
            elif self._visibility.is_listed(asker.key, owner, backend.source):
                shown.append(history.shown_item(item, number=number, sid=asker.sid_of(record)))
        return shown

    def owner_of(self, asker: Asker, prompt_id: str, source: Source) -> Owner:
        """Whose prompt it is that stands on a server which the asker may ask. What the gateway does not know is on a
        pod its user's, and nobody's else.
        """
        owner = self._ledger.owner(prompt_id)
        return asker.key if owner is UNCLAIMED and source is not Source.DUTY else owner

    def _place(self, number: Any, prompt_id: str) -> list[Any]:
        return queue_merge.anonymous_item(number, self.veiled(prompt_id))

    def veiled(self, prompt_id: str) -> str:
        """What stands for another's prompt: a UUID that is always the same and opens nothing."""
        return queue_merge.veiled_id(prompt_id, self._veil)

    async def post(self, request: web.Request) -> web.StreamResponse:
        """``{"clear": true}`` and ``{"delete": [ids]}``; what runs goes on, as with ComfyUI."""
        asker = Asker.of(request)
        try:
            order = await order_in(request)
            ids = ids_in(order, "delete")
        except BadOrder as error:
            return answer(error.refusal)
        orders: dict[str, tuple[Backend, dict[str, Any]]] = {}
        if order.get("clear"):
            for backend in self._own.of(asker.user):
                if backend.source is Source.DUTY and self._visibility.guards_others:
                    orders[backend.id] = (backend, {"delete": self._own_unfinished(asker, backend)})
                else:
                    orders[backend.id] = (backend, {"clear": True})
        for backend, found in self.by_server(asker, ids):
            also = orders.setdefault(backend.id, (backend, {}))[1].setdefault("delete", [])
            also.extend(prompt_id for prompt_id in found if prompt_id not in also)
        said = await asyncio.gather(*(self._take_out(backend, what) for backend, what in orders.values()))
        failed = [one for one in said if not one.is_ok]
        return answer(refusal_of(failed)) if failed else web.Response()

    def _own_unfinished(self, asker: Asker, backend: Backend) -> list[str]:
        return [
            record.prompt_id
            for record in self._ledger.unfinished(backend_id=backend.id)
            if is_own(asker.key, record.user_key)
        ]

    def by_server(self, asker: Asker, ids: Iterable[str]) -> list[tuple[Backend, list[str]]]:
        """Which of these prompts are on which server; those that the asker may not touch are left out.

        One that the gateway does not know may be on any server of the asker; where people are kept apart it is nobody's
        on a shared one.
        """
        found: dict[str, tuple[Backend, list[str]]] = {}
        for prompt_id in ids:
            record = self._ledger.find(prompt_id)
            if record is None:
                backends = self._own.of(asker.user)
            else:
                backend = self._own.of_record(record)
                backends = [] if backend is None else [backend]
            for backend in backends:
                owner = self.owner_of(asker, prompt_id, backend.source)
                if not self._visibility.may_touch(asker.key, owner, backend.source):
                    continue
                found.setdefault(backend.id, (backend, []))[1].append(prompt_id)
        return list(found.values())

    async def _take_out(self, backend: Backend, order: dict[str, Any]) -> Said:
        ids = None if "clear" in order else order["delete"]
        waiting = await self.waiting(backend, ids)
        said = await self._servers.ask(backend, "/queue", method="POST", body=loose_json.write(order))
        await self.settle(backend, waiting)
        return said

    async def waiting(self, backend: Backend, ids: Collection[str] | None) -> list[str]:
        """Prompts of ours that wait there: of these ids, or all; none when the server does not say."""
        try:
            queued = await self._comfy.queue(backend)
        except BackendUnavailable:
            return []
        return [
            record.prompt_id
            for record in self._ledger.unfinished(backend_id=backend.id)
            if record.prompt_id in queued.pending and (ids is None or record.prompt_id in ids)
        ]

    async def settle(self, backend: Backend, prompt_ids: Collection[str]) -> None:
        """Note the end of those that waited a moment ago and are in neither queue nor history now.

        ComfyUI tells nobody of them. Without this they would seem to be forgotten, and be sent again.
        """
        try:
            fates = await self._comfy.fates(backend, prompt_ids)
        except BackendUnavailable as error:
            logger.info("what was taken out on %s is settled later: %s", backend.id, error)
            return
        for prompt_id, entry in fates.items():
            if entry is None:
                self._ledger.end(prompt_id, Outcome.INTERRUPTED)

    async def interrupt(self, request: web.Request) -> web.StreamResponse:
        """``{"prompt_id"}`` on its server. Without one: what runs of the asker's own, wherever it runs; else whatever
        runs on the server where the next prompt would go, as with ComfyUI, unless that may be another's.
        """
        asker = Asker.of(request)
        try:
            order = await order_in(request)
        except BadOrder:
            order = {}  # ComfyUI takes what it cannot read for an empty body
        named = order.get("prompt_id")
        if named:
            found = self.by_server(asker, [named] if isinstance(named, str) else [])
            orders = [
                (backend, {"prompt_id": named})
                for backend, _ in found
                if await self._may_interrupt(backend, named)
            ]
        else:
            orders = await self._running(asker)
            current = self._own.current(asker.user)
            if not orders and not (current.source is Source.DUTY and self._visibility.guards_others):
                orders = [(current, {})]
        try:
            bodies = [(backend, loose_json.write({**order, **what})) for backend, what in orders]
        except ValueError:  # nested almost too deeply to be read is too deep to be written
            return answer(bad_request("The body is nested too deeply."))
        said = await self._servers.tell_all(bodies, "/interrupt")
        failed = [one for one in said if not one.is_ok]
        return answer(refusal_of(failed)) if failed and len(failed) == len(said) else web.Response()

    async def _may_interrupt(self, backend: Backend, prompt_id: str) -> bool:
        """Whether that server is to be told. One from before ComfyUI knew ``prompt_id`` here interrupts whatever runs,
        so a shared one is told of what it runs at this moment alone.
        """
        if backend.source is not Source.DUTY or not self._visibility.guards_others:
            return True
        return bool(await self._running_on(backend, {prompt_id}))

    async def _running(self, asker: Asker) -> list[tuple[Backend, dict[str, Any]]]:
        """What runs of the asker's own prompts, each on its server."""
        if asker.user is None and not self._visibility.guards_others:
            return []
        unfinished = [one for one in self._ledger.unfinished() if is_own(asker.key, one.user_key)]
        backends = {record.backend_id: self._own.of_record(record) for record in unfinished}
        ids = {record.prompt_id for record in unfinished}
        queues = await asyncio.gather(
            *(self._running_on(backend, ids) for backend in backends.values() if backend is not None)
        )
        return [one for queue in queues for one in queue]

    async def _running_on(self, backend: Backend, ids: set[str]) -> list[tuple[Backend, dict[str, Any]]]:
        try:
            queued = await self._comfy.queue(backend)
        except BackendUnavailable:
            return []
        return [(backend, {"prompt_id": prompt_id}) for prompt_id in queued.running & ids]


def read_queue(said: Said) -> Queue | None:
    """The queue in an answer, or None where it is no usable one."""
    if not said.is_ok:
        return None
    try:
        return Queue.read(loose_json.read(said.body))
    except ValueError:
        logger.warning("the queue of %s has an unknown shape", said.backend.id)
        return None


def _document(body: bytes | None) -> dict[str, Any]:
    try:
        document = {} if body is None else loose_json.read(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
