"""What operators are told of all sessions, and what they may do with them. Who they are the hooks have checked."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.life.minutes import STEP_S, by_minute
from comfy_gateway.core.money.costs import spent_by_day
from comfy_gateway.core.people.roles import OPERATORS_ONLY, Role
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, SessionStore
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.service.life.event_log import EventFilter, EventLog
from comfy_gateway.service.life.operations import Operations
from comfy_gateway.service.life.own_session import OwnSession
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.site.api.bodies import asked, taken
from comfy_gateway.site.api.models import (
    ChartList,
    ChartSaid,
    DutyList,
    EtaSaid,
    EventList,
    EventQuery,
    Extend,
    LogQuery,
    LogSaid,
    Nothing,
    PromptList,
    PromptQuery,
    ReadingSaid,
    SessionDetail,
    SessionList,
    SessionQuery,
    SpendList,
    SpendQuery,
    SpendSaid,
    in_utc,
    session_id,
    user_of,
)
from comfy_gateway.site.api.operation import Handler, Operation
from comfy_gateway.site.api.said import duty_said, event_said, prompt_said, session_said
from comfy_gateway.site.asker import Asker, BadOrder, bad_request, told
from comfy_gateway.site.refusals import answer

UNKNOWN_SESSION: Final = Refusal(
    404, "no_session", "There is no such session.", "Ids are those of /sessions."
)
NOT_NOW: Final = Refusal(503, "store_unavailable", "The database does not answer.", retry_after_s=5)


def for_operators(handle: Handler) -> Handler:
    """Refuses everybody else once more: a mistake in the hooks' list of paths must not open these."""

    async def handled(request: web.Request) -> web.StreamResponse:
        if Asker.of(request).role is not Role.OPERATOR:
            return answer(OPERATORS_ONLY)
        try:
            return await handle(request)
        except BadOrder as error:
            return answer(error.refusal)

    return handled


class OperatorPages:
    """Everything but the stream."""

    def __init__(
        self,
        *,
        operations: Operations,
        own: OwnSession,
        log: EventLog,
        ledger: Ledger,
        pool: DutyPool,
        store: SessionStore,
        clock: Clock,
        identity_key: str,
    ) -> None:
        """``identity_key`` is the query key by which users may say their name."""
        self._operations = operations
        self._own = own
        self._log = log
        self._ledger = ledger
        self._pool = pool
        self._store = store
        self._clock = clock
        self._identity_key = identity_key

    def operations(self) -> list[Operation]:
        """What can be asked and ordered."""

        def get(
            path: str,
            name: str,
            summary: str,
            handle: Handler,
            says: type[BaseModel],
            asks: type[BaseModel] | None = None,
            refusals: tuple[int, ...] = (),
            id_means: str = "Of a session.",
        ) -> Operation:
            return Operation(
                "GET",
                path,
                name,
                summary,
                for_operators(handle),
                says,
                asks=asks,
                refusals=refusals,
                id_means=id_means,
            )

        def post(name: str, summary: str, takes: type[BaseModel], refusals: tuple[int, ...]) -> Operation:
            handle = for_operators(partial(self.order, name))
            path = f"/sessions/{{id}}/{name}"
            return Operation(
                "POST", path, f"session_{name}", summary, handle, SessionDetail, takes, refusals=refusals
            )

        return [
            get("/sessions", "sessions", "All sessions.", self.sessions, SessionList, SessionQuery),
            get("/sessions/{id}", "session", "One session.", self.session, SessionDetail, refusals=(404,)),
            get(
                "/sessions/{id}/log", "session_log", "The end of the pod's log.", self.log_tail, LogSaid, LogQuery,
                (404, 409, 502),
            ),
            get(
                "/pods/{id}/log", "pod_log", "What is kept of a pod's log.", self.kept_log, LogSaid, LogQuery, (404,),
                "The name of a pod."
            ),
            post("promote", "Order a pod for this user.", Nothing, (404, 409, 503)),
            post("drain", "End the pod when what runs there has ended.", Nothing, (404, 409)),
            post("terminate", "End the pod at once.", Nothing, (404, 409)),
            post("extend", "Leave an idle pod for a while.", Extend, (404, 409)),
            get("/charts", "charts", "The last hour of all pods, by minutes.", self.charts, ChartList),
            get("/events", "events", "Transitions of sessions.", self.events, EventList, EventQuery),
            get("/spend", "spend", "Dollars by user and day.", self.spend, SpendList, SpendQuery, (503,)),
            get("/duty", "duty", "The shared servers.", self.duty, DutyList),
            get("/prompts", "prompts", "Recent prompts, and where they ran.", self.prompts, PromptList, PromptQuery),
        ]  # fmt: skip

    def routes(self) -> list[web.RouteDef]:
        """Its paths."""
        return [operation.route() for operation in self.operations()]

    async def sessions(self, request: web.Request) -> web.StreamResponse:
        """All that have a pod or unfinished prompts."""
        query = asked(request, SessionQuery, self._identity_key)
        found = [
            session_said(view)
            for view in self._operations.all()
            if (query.user is None or query.user in {view.user.name, view.user.key})
            and (query.state is None or view.state is query.state)
        ]
        return _said(SessionList(sessions=found))

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Anybody's."""
        return _said(self._detail(_user_in(request)))

    async def log_tail(self, request: web.Request) -> web.StreamResponse:
        """Asks the pod's agent."""
        query = asked(request, LogQuery, self._identity_key)
        found = await self._operations.log_tail(_user_in(request), query.lines)
        return answer(found) if isinstance(found, Refusal) else _said(LogSaid(lines=list(found)))

    async def charts(self, _request: web.Request) -> web.StreamResponse:
        """Small enough to be asked for at each load of a page, for all pods at once."""
        now = self._clock.now()
        found: list[ChartSaid] = []
        for view in self._operations.all():
            if view.pod is None:
                continue
            readings = self._operations.readings(view.user)
            minutes = by_minute(((one.at, one.utilization_percent, one.queue) for one in readings), now)
            found.append(
                ChartSaid(
                    id=session_id(view.user),
                    utilization_percent=list(minutes.utilization_percent),
                    queue=list(minutes.queue),
                )
            )
        return _said(ChartList(until=now, step_s=STEP_S, charts=found))

    async def kept_log(self, request: web.Request) -> web.StreamResponse:
        """Of a pod that may be gone."""
        query = asked(request, LogQuery, self._identity_key)
        found = await self._operations.kept_log(request.match_info["id"], query.lines)
        return answer(found) if isinstance(found, Refusal) else _said(LogSaid(lines=list(found)))

    async def order(self, name: str, request: web.Request) -> web.StreamResponse:
        """Promote, drain, terminate or extend."""
        user = _user_in(request)
        asker = Asker.of(request)
        by = "an operator" if asker.user is None else f"operator {asker.user.name}"
        if name == "extend":
            refusal = self._operations.extend(user, (await taken(request, Extend)).minutes)
        else:
            await taken(request, Nothing)
            acts: dict[str, Callable[[UserId, str], Refusal | None]] = {
                "promote": self._operations.promote,
                "drain": self._operations.drain,
                "terminate": self._operations.terminate,
            }
            refusal = acts[name](user, by)
        return _said(self._detail(user)) if refusal is None else answer(refusal)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The newest first, a page at a time."""
        query = asked(request, EventQuery, self._identity_key)
        wanted = EventFilter(query.user, query.event, query.state, query.since, query.until, query.before)
        found = list(islice(self._log.find(wanted), query.limit + 1))
        shown = [event_said(one) for one in found[: query.limit]]
        return _said(EventList(events=shown, next=shown[-1].number if len(found) > query.limit else None))

    async def spend(self, request: web.Request) -> web.StreamResponse:
        """From the history of pods."""
        now = self._clock.now()
        try:
            since, until = asked(request, SpendQuery, self._identity_key).bounds(now.date())
            bills = await self._store.bills(since=in_utc(since))
        except ValueError as error:
            return answer(bad_request(str(error)))
        except StoreError:
            return answer(NOT_NOW)
        end = min(in_utc(until).replace(hour=23, minute=59, second=59, microsecond=999_999), now)
        rows: list[SpendSaid] = []
        for key in sorted({bill.user_key for bill in bills}):
            theirs = [bill for bill in bills if bill.user_key == key]
            for day, usd in spent_by_day(theirs, since=in_utc(since), until=end).items():
                rows.append(SpendSaid(day=day, user=UserId.from_key(key).name, usd=round(usd, 6)))
        rows.sort(key=lambda row: (row.day, row.user))
        total_usd = round(sum(row.usd for row in rows), 6)
        return _said(SpendList(since=since, until=until, total_usd=total_usd, spend=rows))

    async def duty(self, _request: web.Request) -> web.StreamResponse:
        """As the last probes found them."""
        return _said(DutyList(servers=duty_said(self._pool, self._ledger)))

    async def prompts(self, request: web.Request) -> web.StreamResponse:
        """Of everybody, as far as memory has them."""
        query = asked(request, PromptQuery, self._identity_key)
        fitting = (
            record
            for record in self._ledger.newest()
            if (query.before is None or record.position < query.before)
            and (query.outcome is None or record.outcome is query.outcome)
            and (
                query.user is None or (record.user_key is not None and _is_user(query.user, record.user_key))
            )
        )
        found = list(islice(fitting, query.limit + 1))
        duty_ids = frozenset(backend.id for backend in self._pool.backends)
        shown = [prompt_said(record, duty_ids) for record in found[: query.limit]]
        return _said(PromptList(prompts=shown, next=shown[-1].position if len(found) > query.limit else None))

    def _detail(self, user: UserId) -> SessionDetail:
        view, eta = self._operations.one(user), self._own.of(user).eta
        cost_usd = None
        if view.ordered_at is not None and view.cost_per_hour_usd is not None:
            hours = (self._clock.now() - view.ordered_at).total_seconds() / 3600
            cost_usd = round(max(hours, 0.0) * view.cost_per_hour_usd, 6)
        readings = [
            ReadingSaid(at=one.at, utilization_percent=one.utilization_percent, queue=one.queue)
            for one in self._operations.readings(user)
        ]
        return SessionDetail(
            **dict(session_said(view)),
            cost_usd=cost_usd,
            eta_s=None if eta is None else EtaSaid(p50=eta.p50, p90=eta.p90),
            readings=readings,
        )


def _user_in(request: web.Request) -> UserId:
    user = user_of(request.match_info["id"])
    if user is None:
        raise BadOrder(UNKNOWN_SESSION)
    return user


def _is_user(wanted: str, key: str) -> bool:
    return wanted == key or key.partition(":")[2] == wanted


def _said(model: BaseModel) -> web.Response:
    return told(model.model_dump(mode="json"))
