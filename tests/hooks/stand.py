"""A gateway's edge made of its real parts, and flows that meet the hooks as mitmproxy has them meet.

Only time and the cloud are made up: a pod that a burst asks for is noted and never bought.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mitmproxy import hooks as mitmproxy_hooks
from mitmproxy import http
from mitmproxy.flow import Error
from mitmproxy.proxy.layers.http import _hooks as events
from mitmproxy.test import taddons, tflow

from comfy_gateway.core.errors import PromptRefused
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.idleness import IdleLimits
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.market import Market
from comfy_gateway.core.money.profiles import Profile
from comfy_gateway.core.people.client_ids import ClientIds
from comfy_gateway.core.people.cookie import IdentityCookie
from comfy_gateway.core.people.hosts import AllowedHosts
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import Candidate
from comfy_gateway.core.requests.classify import RouteRules
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.deadlines import DeadlinesHook
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.error_pages import ErrorPages
from comfy_gateway.hooks.frames import FramesHook
from comfy_gateway.hooks.identity import IdentityHook
from comfy_gateway.hooks.inspect import InspectHook
from comfy_gateway.hooks.prompts import PromptsHook
from comfy_gateway.hooks.redact import RedactHook
from comfy_gateway.hooks.router import RouterHook
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.files.told_files import ToldFiles
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.wishes import Wishes
from comfy_gateway.service.meters import Meters
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.prompts.submission import Submission
from comfy_gateway.service.prompts.turns import Turns
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import ledger_in_memory
from tests.fakes.servers import FakeComfyServer
from tests.fakes.store import FakeStore

ALICE = UserId(IdKind.NAMED, "alice")
BOB = UserId(IdKind.NAMED, "bob")
KEYS = Keys(bytes(range(32)))
HOST = "127.0.0.1:8000"
"""Where clients think they are."""
PEER = "127.0.0.1"
"""Where flows of mitmproxy's own test helpers come from."""
NOWHERE = ("127.0.0.1", 9)
"""The placeholder: where a flow goes that nobody has routed."""
SITE = Upstream("http", "127.0.0.1", 40001)
SITE_KEY = "key-of-the-site"

HOME = Backend("duty-0", Source.DUTY, Upstream("http", "home.test", 3000))
DUTY = Backend("duty-1", Source.DUTY, Upstream("http", "duty.test", 3000, "/studio/comfy"))
"""The shared server that everybody computes on. It is not home, so that the two can be told apart."""
POD = Backend(
    "comfy-gw-alice-1", Source.PRIVATE, Upstream("https", "pod1.proxy.test", 443), "token-of-the-pod"
)

RULES = Rules(
    candidates=(Candidate("RTX 4090", "SECURE"),),
    profiles=(Profile("small", (Candidate("A5000", "SECURE"),), on_request=True),),
    caps=Caps(max_active_sessions=10, budget_hourly_usd=20.0),
    idle=IdleLimits(idle_s=600, gpu_threshold_percent=0, silence_timeout_s=900, max_gap_s=100),
)

Pairs = Iterable[tuple[str, str]]


@dataclass
class StandInPlacement:
    """Implements ``submission.Placement``: every prompt goes to the current server, and earns a pod."""

    routes: Routes
    refusals: list[Backend] = field(default_factory=list)

    def backend_for(self, user: UserId | None, document: Mapping[str, Any]) -> Backend:
        """The current one."""
        return self.routes.current(user)

    def refused(self, user: UserId | None, backend: Backend) -> None:
        """Notes it."""
        self.refusals.append(backend)

    lacking: str = ""
    """What duty lacks and pods have."""

    def only_on_pods(self, user: UserId, document: Mapping[str, Any]) -> str:
        return self.lacking

    def earns_pod(self, user: UserId, document: Mapping[str, Any]) -> bool:
        """Always."""
        return True


@dataclass
class StandInInputs:
    """Implements ``submission.Inputs`` by what a test puts in."""

    rewritten: Mapping[str, Any] = field(default_factory=dict)
    """What each document gets on its way."""
    refusal: Refusal | None = None
    refused_by: dict[str, Refusal] = field(default_factory=dict)
    """By backend."""
    is_worth_a_second_try: bool = False
    carried: list[tuple[str, str]] = field(default_factory=list)
    """Backend and peer of each call."""
    while_carrying: Callable[[], object] = lambda: None

    async def carry(
        self, user: UserId | None, document: Mapping[str, Any], backend: Backend, *, peer: str = ""
    ) -> Mapping[str, Any]:
        """The same object, unless there is something to rewrite."""
        self.carried.append((backend.id, peer))
        self.while_carrying()
        if (refusal := self.refused_by.get(backend.id, self.refusal)) is not None:
            raise PromptRefused(refusal)
        return {**document, **self.rewritten} if self.rewritten else document

    async def doubt(self, user: UserId | None, document: Mapping[str, Any], backend: Backend) -> bool:
        """As the test says, once."""
        answer, self.is_worth_a_second_try = self.is_worth_a_second_try, False
        return answer

    def shown(self, user: UserId | None, data: bytes) -> bytes:
        """What a server calls ``hidden/`` the user does not see."""
        return data.replace(b"hidden/", b"")


@dataclass
class StandInRelay:
    """Implements ``submission.Relay`` without sockets."""

    asked: list[tuple[UserId | None, str, float]] = field(default_factory=list)
    backends: list[str | None] = field(default_factory=list)
    while_waiting: Callable[[], object] = lambda: None
    """What happens elsewhere while a prompt waits for its socket."""

    async def is_listening(
        self, user: UserId | None, sid: str, *, timeout_s: float, backend: Backend | None = None
    ) -> bool:
        """Notes who asked."""
        self.asked.append((user, sid, timeout_s))
        self.backends.append(backend.id if backend else None)
        self.while_waiting()
        return True


class Stand:
    """An open gateway, its hooks, and what they have set off."""

    def __init__(
        self,
        rules: Rules = RULES,
        *,
        home: Backend = HOME,
        duty: Backend = DUTY,
        is_fair: bool = False,
        most_queued: int = 0,
    ) -> None:
        self.clock = FakeClock()
        self.begun: list[UserId] = []
        """Users for whom a pod was asked for."""
        self.relay = StandInRelay()
        self.routes = Routes(home, lambda _user: duty, (home, duty))
        self.ledger = ledger_in_memory(self.clock)
        self.activity = Activity(self.clock)
        self.sessions = Sessions(
            store=FakeStore(self.clock), routes=self.routes, clock=self.clock, backend_of=lambda _pod: POD
        )
        self.meters = Meters()
        self.meters.watch(self.sessions)
        self.tasks = Tasks("test")
        self.door = Door()
        self.pages = ErrorPages()
        self.keep_bytes = 0
        self.wishes = Wishes(rules.buying)
        bursts = Bursts(
            sessions=self.sessions,
            rules=rules,
            market=Market(rules.market),
            clock=self.clock,
            begin=self.begun.append,
            wishes=self.wishes,
        )
        self.comfy = FakeComfyServer()
        self.placement = StandInPlacement(self.routes)
        self.turns = Turns(ledger=self.ledger, comfy=self.comfy, is_fair=is_fair, most_queued=most_queued)
        self.inputs = StandInInputs()
        self.nudged: list[UserId] = []
        self.submission = Submission(
            ledger=self.ledger,
            routes=self.routes,
            placement=self.placement,
            inputs=self.inputs,
            relay=self.relay,
            comfy=self.comfy,
            meters=self.meters,
            bursts=bursts,
            keys=KEYS,
            clock=self.clock,
            nudge=self.nudged.append,
            turns=self.turns,
        )
        self.edge = Edge(
            routes=self.routes,
            ledger=self.ledger,
            bursts=bursts,
            activity=self.activity,
            files=Files(routes=self.routes, told=ToldFiles(self.clock)),
            submission=self.submission,
            tasks=self.tasks,
            identity=IdentityRules(),
            cookie=IdentityCookie(KEYS.cookie_key()),
            client_ids=ClientIds(),
            route_rules=RouteRules(),
            allowed_hosts=AllowedHosts(),
            is_public_https=False,
            site=SITE,
            site_key=SITE_KEY,
        )
        self.door.open(self.edge)
        self.deadlines = DeadlinesHook(self.door, self.pages, connect_timeout_s=10.0, answer_timeout_s=300.0)
        self.identity = IdentityHook(self.door)
        self.hooks: list[object] = [
            self.identity,
            PromptsHook(self.door),
            RouterHook(self.door, keep_bytes=lambda: self.keep_bytes),
            self.deadlines,
            FramesHook(keep_bytes=lambda: self.keep_bytes),
            RedactHook(self.door),
            InspectHook(),
        ]
        """In the order of ``wiring``."""
        self.mitmproxy: taddons.context

    def change(self, **parts: Any) -> None:
        """Open the door to an edge with other parts."""
        self.edge = replace(self.edge, **parts)
        self.door.open(self.edge)

    def meet(self, **rules: Any) -> None:
        """Meet callers by other rules, as other settings would say."""
        self.identity._rules = replace(self.identity._rules, **rules)

    async def arrive(self, flow: http.HTTPFlow) -> http.HTTPFlow:
        """The request's head, then its body. mitmproxy does the second also where a hook has answered."""
        await self.body(flow, await self.head(flow))
        return flow

    async def head(self, flow: http.HTTPFlow) -> bytes | None:
        """The request's head alone; returns the body that is to follow."""
        body, flow.request.data.content = flow.request.data.content, None
        await self.trigger(events.HttpRequestHeadersHook(flow))
        return body

    async def body(self, flow: http.HTTPFlow, body: bytes | None) -> None:
        """The end of the request; a body that streams is not there to be read."""
        flow.request.data.content = None if flow.request.stream else body
        await self.trigger(events.HttpRequestHook(flow))

    async def answer(self, flow: http.HTTPFlow, response: http.Response | None = None) -> http.HTTPFlow:
        """The server's answer, or the one that a hook has set: that is whole from the start and never streams."""
        is_made_here = flow.response is not None
        flow.response = flow.response or response or http.Response.make(200)
        body = flow.response.raw_content
        await self.trigger(events.HttpResponseHeadersHook(flow))
        flow.response.data.content = body if is_made_here or not flow.response.stream else None
        await self.trigger(events.HttpResponseHook(flow))
        return flow

    async def exchange(self, flow: http.HTTPFlow, response: http.Response | None = None) -> http.HTTPFlow:
        """A whole request and its answer."""
        return await self.answer(await self.arrive(flow), response)

    async def break_off(self, flow: http.HTTPFlow) -> None:
        """The flow ends with an error, if need be with the server's."""
        flow.error = flow.error or Error("the server broke off")
        await self.trigger(events.HttpErrorHook(flow))

    async def trigger(self, event: mitmproxy_hooks.Hook) -> None:
        """One event for all hooks, in their order. What a hook raises goes to the test."""
        for hook in self.hooks:
            await self.mitmproxy.master.addons.invoke_addon(hook, event)

    def where(self, flow: http.HTTPFlow) -> str:
        """Where the flow goes: a backend's id, ``site <path>``, or the status that a hook has answered with."""
        if flow.response is not None:
            return str(flow.response.status_code)
        request = flow.request
        place = Upstream(request.scheme, request.host, request.port)
        if place == SITE:
            return f"site {request.path}"
        for backend in (self.routes.home, self.routes.duty(None), *self.routes.privates().values()):
            if replace(backend.upstream, prefix="") == place:
                assert request.path.startswith(f"{backend.upstream.prefix}/")
                assert request.headers["Host"] == backend.upstream.authority
                assert flow.metadata[edge.BACKEND] == backend.id
                return backend.id
        raise AssertionError(f"{request.method} {request.path} goes to {place}")

    @contextmanager
    def in_mitmproxy(self) -> Iterator["Stand"]:
        """Inside a context of mitmproxy's own; the hooks' timers end with it."""
        with taddons.context(*self.hooks) as self.mitmproxy:
            try:
                yield self
            finally:
                self.deadlines.done()


@asynccontextmanager
async def standing(**changes: Any) -> AsyncIterator[Stand]:
    """An open gateway for one test."""
    stand = Stand(**changes)
    with stand.in_mitmproxy():
        yield stand
    await stand.tasks.aclose()


def ask(
    path: str = "/system_stats",
    *,
    method: str = "GET",
    user: str | None = "alice",
    headers: Pairs = (),
    body: bytes | None = None,
    host: str | None = HOST,
) -> http.HTTPFlow:
    """A request as mitmproxy in reverse mode hands it to the first hook."""
    pairs = [("Host", host)] if host is not None else []
    if user is not None:
        pairs.append(("X-Comfy-User", user))
    if body is not None:
        pairs.append(("Content-Length", str(len(body))))
    request = http.Request(
        host=NOWHERE[0],
        port=NOWHERE[1],
        method=method.encode(),
        scheme=b"http",
        authority=b"",
        path=path.encode(),
        http_version=b"HTTP/1.1",
        headers=http.Headers([(name.encode(), value.encode()) for name, value in (*pairs, *headers)]),
        content=body or b"",
        trailers=None,
        timestamp_start=0.0,
        timestamp_end=0.0,
    )
    flow = tflow.tflow(req=request)
    flow.client_conn.timestamp_tls_setup = None
    return flow


def socket(path: str = "/ws?clientId=tab", **more: Any) -> http.HTTPFlow:
    """The handshake of a WebSocket."""
    handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ]
    return ask(path, headers=[*handshake, *more.pop("headers", ())], **more)


def prompt(body: bytes, path: str = "/prompt", **more: Any) -> http.HTTPFlow:
    """``POST /prompt``."""
    return ask(path, method="POST", body=body, **more)
