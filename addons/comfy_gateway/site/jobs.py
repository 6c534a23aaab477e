"""``/api/jobs`` of newer servers, over all servers of a user. Where none of them has it we have none either."""

import logging
import uuid
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import web

from comfy_gateway.core import loose_json, site_contract
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.visibility import OPEN, Visibility, is_own
from comfy_gateway.core.requests.refusals import UNKNOWN_PAGE
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.core.results.jobs import (
    JobsPage,
    JobsQuery,
    anonymous_job,
    job_of_entry,
    job_of_item,
    shown_job,
)
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.results.kept_entries import MAX_KEPT, KeptEntries
from comfy_gateway.service.results.user_servers import UserServers
from comfy_gateway.site.asker import Asker, BadOrder, ids_in, order_in, told, told_bytes
from comfy_gateway.site.history_pages import entries_in
from comfy_gateway.site.queue import QueuePages, read_queue
from comfy_gateway.site.refusals import answer
from comfy_gateway.site.results import Results
from comfy_gateway.site.servers import Said, Servers, off_the_loop, refusal_of

logger = logging.getLogger(__name__)

PATH = "/api/jobs"
MAX_FROM_OLDER = 200
"""Entries of a server without this page that stand beside the jobs of others."""
STATUS_OF = {
    Outcome.ACCEPTED: "pending",
    Outcome.RUNNING: "in_progress",
    Outcome.DONE: "completed",
    Outcome.ERROR: "failed",
    Outcome.LOST: "failed",
    Outcome.INTERRUPTED: "cancelled",
}
NOT_FOUND = {"error": "Job not found"}


class Jobs:
    """Answers for every route of ``/api/jobs``."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        own: UserServers,
        servers: Servers,
        queue: QueuePages,
        results: Results,
        kept: KeptEntries,
        visibility: Visibility = OPEN,
    ) -> None:
        self._ledger = ledger
        self._own = own
        self._servers = servers
        self._queue = queue
        self._results = results
        self._kept = kept
        self._visibility = visibility

    def routes(self) -> list[web.RouteDef]:
        """Where the hooks send them."""
        path = site_contract.COMFY_PATH + "/jobs"
        return [
            web.get(path, self.get_list),
            web.post(path + "/cancel", self.cancel_several),
            web.get(path + "/{prompt_id}", self.get_one),
            web.post(path + "/{prompt_id}/cancel", self.cancel),
        ]

    async def get_list(self, request: web.Request) -> web.StreamResponse:
        """All jobs that the asker sees, sorted, filtered and cut as asked."""
        asker = Asker.of(request)
        query = JobsQuery.parse(request.query_string)
        if query is None:  # a server says best what is wrong with it
            said = await self._servers.ask(self._own.current(asker.user), f"{PATH}?{request.query_string}")
            return _passed_on(said)
        asked = await self._servers.ask_all(self._own.of(asker.user), f"{PATH}?{query.of_each()}")
        if not any(one.is_ok for one in asked):
            return _passed_on(next((one for one in asked if one.status), asked[-1]))
        size_bytes = sum(len(one.body) for one in asked)
        pages = await off_the_loop(size_bytes, lambda: [_read_page(one) for one in asked])
        jobs: dict[str, dict[str, Any]] = {}
        total, cut_short = 0, set()
        for one, read in zip(asked, pages, strict=True):
            page = read if read is not None else await self._page_of_other(asker, one, query)
            if page.has_more:
                cut_short.add(one.backend.id)
            total += page.total
            for job in page.jobs:
                shown = self._shown(asker, one.backend, job)
                if shown is None or not query.wants(shown) or shown["id"] in jobs:
                    total -= 1
                else:
                    jobs[shown["id"]] = shown
        kept, missing = await self._kept_besides(asker, jobs.values(), cut_short, query)
        jobs.update((job["id"], job) for job in kept)
        document = query.page(jobs.values(), total + missing)
        return told_bytes(await off_the_loop(size_bytes, lambda: orjson.dumps(document)))

    async def get_one(self, request: web.Request) -> web.StreamResponse:
        """One job with its outputs and workflow."""
        asker, prompt_id = Asker.of(request), request.match_info["prompt_id"]
        record = await self._ledger.recall(prompt_id)
        if record is not None and not self._results.is_open(asker, record):
            return told(NOT_FOUND, status=404)
        backend = None if record is None else self._own.of_record(record)
        of_record = [] if backend is None else [backend]
        backends = self._results.unclaimed_on(asker) if record is None else of_record
        said = await self._servers.ask_all(backends, f"{PATH}/{quote(prompt_id, safe='')}")
        for one in said:
            job = _read_job(one)
            if job is not None:
                known = record or self._ledger.reserved(prompt_id)
                number = None if known is None else known.number
                sid = None if known is None else asker.sid_of(known)
                shown = shown_job(job, alias=one.backend.alias, number=number, sid=sid)
                return told(shown, source=one.backend.source)
        found = None
        if record is not None:
            found, _ = await self._results.find(asker, prompt_id, record)
        if found is not None:
            created_ms = None if record is None else _accepted_ms(record)
            job = job_of_entry(prompt_id, found.entry, created_ms=created_ms, is_whole=True)
            return told(job, source=found.source)
        return _passed_on(said[-1]) if said else told(NOT_FOUND, status=404)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Interrupt or take out one job, wherever it is."""
        asker, prompt_id = Asker.of(request), request.match_info["prompt_id"]
        return await self._cancel(
            [
                (backend, ids, f"{PATH}/{quote(prompt_id, safe='')}/cancel", b"")
                for backend, ids in self._queue.by_server(asker, [prompt_id])
            ]
        )

    async def cancel_several(self, request: web.Request) -> web.StreamResponse:
        """``{"job_ids": [ids]}``."""
        asker = Asker.of(request)
        try:
            ids = ids_in({"job_ids": None, **await order_in(request)}, "job_ids")
        except BadOrder as error:
            return answer(error.refusal)
        if not all(_is_job_id(prompt_id) for prompt_id in ids):
            # What is wrong with them the server says best; it is not told of one that it could cancel.
            order = loose_json.write({"job_ids": [one for one in ids if not _is_job_id(one)]})
            path = f"{PATH}/cancel"
            return _passed_on(
                await self._servers.ask(self._own.current(asker.user), path, method="POST", body=order)
            )
        return await self._cancel(
            [
                (backend, found, f"{PATH}/cancel", loose_json.write({"job_ids": found}))
                for backend, found in self._queue.by_server(asker, ids)
            ]
        )

    async def _cancel(self, orders: Sequence[tuple[Backend, list[str], str, bytes]]) -> web.Response:
        said = []
        for backend, ids, path, body in orders:
            waiting = await self._queue.waiting(backend, ids)
            said.append(await self._servers.ask(backend, path, method="POST", body=body))
            await self._queue.settle(backend, waiting)
        failed = [one for one in said if not one.is_ok]
        if failed and len(failed) == len(said):
            return _passed_on(failed[0])
        return told({"cancelled": any(_read(one).get("cancelled") is True for one in said)})

    def _shown(self, asker: Asker, backend: Backend, job: dict[str, Any]) -> dict[str, Any] | None:
        record = self._ledger.find(job["id"])
        known = record or self._ledger.reserved(job["id"])
        number = None if known is None else known.number
        owner = self._queue.owner_of(asker, job["id"], backend.source)
        if self._visibility.has_place(asker.key, owner, backend.source):
            return anonymous_job(job, self._queue.veiled(job["id"]), number=number)
        if not self._visibility.is_listed(asker.key, owner, backend.source):
            return None
        if record is None:
            return shown_job(job, alias=backend.alias, number=number)
        is_taken_out = record.is_hidden and is_own(asker.key, record.user_key)
        return None if is_taken_out else shown_job(job, alias=backend.alias, number=record.number)

    async def _page_of_other(self, asker: Asker, said: Said, query: JobsQuery) -> JobsPage:
        """The jobs of a server without this page, made of its queue and history; of a silent one, what is known."""
        backend = said.backend
        queue, entries = None, None
        if said.status:
            queue = read_queue(await self._servers.ask(backend, "/queue"))
            entries = await entries_in(
                await self._servers.ask(backend, f"/history?max_items={MAX_FROM_OLDER}")
            )
        if queue is None:
            queue = await self._queue.known_of(asker, backend)
        jobs = [
            *(
                job_of_item(item, "in_progress", created_ms=self._created_ms(item[1]))
                for item in queue.running
            ),
            *(job_of_item(item, "pending", created_ms=self._created_ms(item[1])) for item in queue.pending),
            *(
                job_of_entry(ended.prompt_id, ended.entry, created_ms=self._created_ms(ended.prompt_id))
                for ended in entries or ()
            ),
        ]
        wanted = [job for job in jobs if query.wants(job)]
        return JobsPage(wanted, len(wanted), has_more=False)

    async def _kept_besides(
        self, asker: Asker, live: Collection[dict[str, Any]], cut_short: set[str], query: JobsQuery
    ) -> tuple[list[dict[str, Any]], int]:
        """Jobs of prompts that ended and that no server tells of, as far as they can be on the page, and how many there
        are in all. A server's list that was cut short may hold what it lacks.
        """
        listed = {job["id"] for job in live}

        def is_missing(record: PromptRecord) -> bool:
            is_elsewhere = record.prompt_id in listed or record.backend_id in cut_short
            return not is_elsewhere and STATUS_OF[record.outcome] in query.statuses

        missing = self._kept.missing(asker.key, is_missing)
        most = query.most_of_newest
        if most is None:
            wanted, most = missing, MAX_KEPT
        else:
            newest = sorted((job.get("create_time", 0) for job in live), reverse=True)[:most]
            oldest_ms = newest[-1] if len(newest) == most else 0
            wanted = [record for record in missing if _accepted_ms(record) >= oldest_ms]
        kept = await self._kept.read(asker.key, wanted, most=most)
        made = [
            job_of_entry(ended.prompt_id, ended.entry, created_ms=self._created_ms(ended.prompt_id))
            for ended in kept
        ]
        jobs = [job for job in made if query.wants(job)]
        is_all = len(wanted) == len(missing) <= most
        return jobs, len(jobs) if is_all or query.workflow_id else len(missing)

    def _created_ms(self, prompt_id: str) -> float | None:
        record = self._ledger.find(prompt_id)
        return None if record is None else _accepted_ms(record)


def _is_job_id(prompt_id: str) -> bool:
    """Whether a newer server takes it: one that it does not take makes it refuse all."""
    try:
        return str(uuid.UUID(prompt_id)) == prompt_id
    except ValueError:
        return False


def _accepted_ms(record: PromptRecord) -> int:
    return int(record.accepted_at.timestamp() * 1000)


def _passed_on(said: Said) -> web.Response:
    """A server's own answer, or why there is none."""
    if not said.status:
        return answer(refusal_of([said]))
    if said.status >= 500:
        return answer(refusal_of([said]))
    is_json = said.body[:1] in {b"{", b"["}
    return (
        told_bytes(said.body, status=said.status, source=said.backend.source)
        if is_json
        else answer(UNKNOWN_PAGE)
    )


def _read(said: Said) -> dict[str, Any]:
    try:
        document = loose_json.read(said.body) if said.is_ok else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _read_job(said: Said) -> dict[str, Any] | None:
    job = _read(said)
    return job if "id" in job else None


def _read_page(said: Said) -> JobsPage | None:
    try:
        return JobsPage.read(_read(said)) if said.is_ok else None
    except ValueError:
        logger.warning("the jobs of %s have an unknown shape", said.backend.id)
        return None
