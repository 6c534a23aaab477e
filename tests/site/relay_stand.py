"""A relay on a real socket, clients to talk to it, and a ComfyUI that says what a test tells it to say."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web
from yarl import URL

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.site.relay import Relay, RelayLimits
from comfy_gateway.site.relay.ports import Rescuer
from tests.fakes.ledger import ledger_in_memory

DEADLINE_S = 10.0
ALICE = UserId(IdKind.NAMED, "alice")
BOB = UserId(IdKind.NAMED, "bob")
KEYS = Keys(b"k" * 32)
QUICK = RelayLimits(
    connect_timeout_s=2.0,
    backoff_first_s=0.05,
    backoff_most_s=0.2,
    linger_s=0.3,
    farewell_s=0.15,
    ending_grace_s=0.15,
    release_wait_s=0.5,
    hold_s=2.0,
    close_timeout_s=1.0,
)

type Said = dict[str, Any] | bytes
"""A message: JSON of a text frame, or the bytes of a binary one."""


async def until(condition: Callable[[], object], *, within_s: float = DEADLINE_S) -> None:
    """Return as soon as the condition holds. Raises TimeoutError when it never does."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens elsewhere and sets no event
            await asyncio.sleep(0.005)


def duty(url: str, number: int = 0) -> Backend:
    alias = f"server-{number}" if number else ""
    return Backend(f"duty-{number}", Source.DUTY, Upstream.parse(url), alias=alias)


def pod(url: str, token: str | None = None) -> Backend:
    return Backend("comfy-gw-alice-1", Source.PRIVATE, Upstream.parse(url), token, "private-1")


@dataclass
class Client:
    """A client's socket. ``said`` is all that it has heard, in order."""

    socket: aiohttp.ClientWebSocketResponse
    said: list[Said] = field(default_factory=list)

    @property
    def close_code(self) -> int | None:
        return self.socket.close_code

    def kinds(self) -> list[str]:
        """Types of the text messages, in order."""
        return [said["type"] for said in self.said if isinstance(said, dict)]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Data of all messages of this type."""
        return [said["data"] for said in self.said if isinstance(said, dict) and said["type"] == kind]

    def story(self, prompt_id: str) -> list[str]:
        """What was told about a prompt, without its steps; ``released`` is executing with node null."""
        story = []
        for said in self.said:
            if not isinstance(said, dict) or said["data"].get("prompt_id") != prompt_id:
                continue
            if said["type"] not in {"progress", "progress_state"}:
                is_release = said["type"] == "executing" and said["data"]["node"] is None
                story.append("released" if is_release else said["type"])
        return story

    async def hear(self) -> Said | None:
        """The next message, or None when the socket is closed."""
        async with asyncio.timeout(DEADLINE_S):
            message = await self.socket.receive()
        if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
            return None
        said: Said = json.loads(message.data) if message.type is WSMsgType.TEXT else bytes(message.data)
        self.said.append(said)
        return said

    async def hear_until(self, condition: Callable[["Client"], object]) -> None:
        """Listen until the condition holds. Fails when the socket is closed before, or nothing comes."""
        while not condition(self):
            assert await self.hear() is not None, f"closed with {self.close_code} after {self.said}"

    async def hear_kind(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Data of the ``count``-th message of this type."""
        await self.hear_until(lambda client: len(client.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def hear_all_until_closed(self) -> None:
        while await self.hear() is not None:
            pass

    async def say(self, kind: str, data: Any) -> None:
        await self.socket.send_json({"type": kind, "data": data})


@dataclass
class Notes:
    """Remembers which files were noted: user, server, prompt and output."""

    noted: list[tuple[str | None, str, str, Any]] = field(default_factory=list)

    def note(self, user_key: str | None, backend: Backend, prompt_id: str, output: Any) -> None:
        self.noted.append((user_key, backend.id, prompt_id, output))


@dataclass
class Rescue:
    """A rescuer that does only what a test does."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    """Prompt and server."""

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        self.asked.append((prompt_id, backend_id))


class Stand:
    """A relay with its site. The user stands in a header, as the gateway's hooks would say it."""

    def __init__(
        self,
        backend: Backend,
        limits: RelayLimits,
        clock: Clock,
        others: Sequence[Backend] = (),
        rescuer: Rescuer | None = None,
    ) -> None:
        self.duty = backend
        self.routes = Routes(backend, lambda user: self.duty, (backend, *others))
        self.ledger = ledger_in_memory(clock)
        self.notes = Notes()
        self.nudged: list[UserId] = []
        self.relay = Relay(
            routes=self.routes,
            ledger=self.ledger,
            keys=KEYS,
            clock=clock,
            limits=limits,
            files=self.notes,
            rescuer=rescuer,
            nudge=self.nudged.append,
        )
        self.url = ""
        self.clients: list[Client] = []
        """All that ever connected: nobody is closed because a test lost sight of it."""
        self.runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    @property
    def stats(self) -> Any:
        return self.relay.stats

    async def connect(
        self, user: UserId | None = ALICE, sid: str | None = "tab", *, autoping: bool = True, **query: str
    ) -> Client:
        """Open a client's socket."""
        url, headers = self._asking(user, sid, query)
        socket = await self.http.ws_connect(url, headers=headers, max_msg_size=0, autoping=autoping)
        self.clients.append(Client(socket))
        return self.clients[-1]

    async def refusal(
        self, user: UserId | None = ALICE, sid: str | None = "tab"
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a handshake that does not succeed."""
        url, headers = self._asking(user, sid, {})
        async with self.http.get(url, headers=headers | UPGRADE) as response:
            return response.status, await response.json()

    def _asking(
        self, user: UserId | None, sid: str | None, query: Mapping[str, str]
    ) -> tuple[URL, dict[str, str]]:
        params = dict(query) if sid is None else {**query, "clientId": sid}
        return URL(f"{self.url}/ws").with_query(params), {} if user is None else {"X-User": user.key}

    async def prompt(
        self,
        nodes: dict[str, Any],
        *,
        backend: Backend | None = None,
        user: UserId | None = ALICE,
        sid: str = "tab",
    ) -> str:
        """Send a prompt as the gateway does, and note that it was accepted. Returns its id."""
        backend = backend or self.routes.current(user)
        prompt_id = await self.submit(nodes, backend, user=user, sid=sid)
        self.accept(prompt_id, backend, user=user, sid=sid)
        return prompt_id

    async def submit(
        self,
        nodes: dict[str, Any],
        backend: Backend,
        *,
        user: UserId | None = ALICE,
        sid: str = "tab",
        prompt_id: str | None = None,
    ) -> str:
        """Send a prompt as the gateway does, and tell the ledger nothing. Returns its id."""
        body = {"prompt": nodes, "client_id": upstream_sid(KEYS, user, sid)}
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        async with self.http.post(backend.upstream.url("/prompt"), json=body) as response:
            assert response.status == 200, await response.text()
            accepted_id: str = (await response.json())["prompt_id"]
        return accepted_id

    def accept(
        self,
        prompt_id: str,
        backend: Backend,
        *,
        user: UserId | None = ALICE,
        sid: str = "tab",
        replays: int = 0,
    ) -> None:
        """Have the ledger say that this server has the prompt; with ``replays`` it was moved there."""
        user_key = user.key if user else None
        self.ledger.accept(PromptRecord(prompt_id, user_key, sid, backend.id, replays=replays))

    def outcome(self, prompt_id: str) -> Outcome:
        record = self.ledger.find(prompt_id)
        assert record is not None
        return record.outcome

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("X-User")
        user = UserId.from_key(key) if key is not None else None
        return await self.relay.handle(request, user=user, sid=request.query.get("clientId"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stand"]:
        app = web.Application()
        app.router.add_get("/ws", self._handle)
        runner = self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            with eager_tasks():
                async with aiohttp.ClientSession() as self._http:
                    try:
                        yield self
                    finally:
                        await self.relay.aclose()
                        for client in self.clients:
                            await client.socket.close()
        finally:
            await runner.cleanup()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@asynccontextmanager
async def relay_before(
    url: str,
    limits: RelayLimits = QUICK,
    clock: Clock | None = None,
    others: Sequence[Backend] = (),
    rescuer: Rescuer | None = None,
) -> AsyncIterator[Stand]:
    """A relay whose users are on this duty server; ``others`` are in its pool."""
    stand = Stand(duty(url), limits, clock or SystemClock(), others, rescuer)
    async with stand.running():
        yield stand


class ScriptedComfy:
    """A ComfyUI that says only what the test lets it say, with the real one's way of keeping sockets.

    ``registered`` holds the sockets that would hear events; a handler that ends removes its id, whoever is
    there.
    """

    def __init__(self) -> None:
        self.registered: dict[str, web.WebSocketResponse] = {}
        self.open: dict[str, int] = {}
        """Handlers that run, by socket id."""
        self.most_open: dict[str, int] = {}
        """The most that ever ran at once for a socket id; more than one makes it deaf."""
        self.opened = 0
        self.heard: list[Said] = []
        self.requests: list[web.Request] = []
        self.queue: list[str] = []
        self.history: dict[str, Any] = {}
        self.remaining = 0
        self.greets = True
        self.queue_answer: Any = None
        """What it says about its queue instead of the truth."""
        self.queue_status = 200
        self.resumes: str | None = None
        """The node that it names to a socket that comes, as it does while a prompt runs."""
        self.refuses_with: int | None = None
        self.answers_pings = True
        self.closes = asyncio.Event()
        """While it is not set, a closing handshake is not answered."""
        self.closes.set()
        self.answers = asyncio.Event()
        """While it is not set, handshakes wait."""
        self.answers.set()
        self.looks_up = asyncio.Event()
        """While it is not set, answers about the queue wait."""
        self.looks_up.set()
        self.recalls = asyncio.Event()
        """While it is not set, answers about the history wait."""
        self.recalls.set()
        self.url = ""

    @property
    def socket(self) -> web.WebSocketResponse:
        """The only registered socket."""
        (socket,) = self.registered.values()
        return socket

    async def say(self, kind: str, **data: Any) -> None:
        await self.socket.send_json({"type": kind, "data": data})

    async def say_bytes(self, payload: bytes) -> None:
        await self.socket.send_bytes(payload)

    async def say_status(self, remaining: int) -> None:
        self.remaining = remaining
        await self.say("status", **self._status())

    def drop(self) -> None:
        """Cut all connections without a closing frame."""
        for request in self.requests:
            if request.transport is not None and request.path == "/ws":
                request.transport.abort()

    def _status(self) -> dict[str, Any]:
        return {"status": {"exec_info": {"queue_remaining": self.remaining}}}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await self.answers.wait()
        if self.refuses_with is not None:
            return web.Response(status=self.refuses_with, headers={"Location": "/queue"})
        socket = web.WebSocketResponse(max_msg_size=0, autoping=self.answers_pings, autoclose=False)
        await socket.prepare(request)
        sid = request.query["clientId"]
        self.registered[sid] = socket
        self.opened += 1
        self.open[sid] = self.open.get(sid, 0) + 1
        self.most_open[sid] = max(self.most_open.get(sid, 0), self.open[sid])
        try:
            if self.greets:
                await socket.send_json({"type": "status", "data": {**self._status(), "sid": sid}})
            if self.resumes is not None:
                await socket.send_json({"type": "executing", "data": {"node": self.resumes}})
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self.heard.append(json.loads(message.data))
                elif message.type is WSMsgType.BINARY:
                    self.heard.append(bytes(message.data))
            await self.closes.wait()
        finally:
            self.registered.pop(sid, None)
            self.open[sid] -= 1
        return socket

    async def _queue(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        await self.looks_up.wait()
        if self.queue_answer is not None:
            return web.json_response(self.queue_answer, status=self.queue_status)
        running = [[0, prompt_id, {}, {}, []] for prompt_id in self.queue]
        return web.json_response({"queue_running": running, "queue_pending": []})

    async def _history(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        await self.recalls.wait()
        prompt_id = request.match_info["prompt_id"]
        found = {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
        return web.json_response(found)

    @asynccontextmanager
    async def serving(self, port: int = 0, prefix: str = "") -> AsyncIterator["ScriptedComfy"]:
        app = web.Application()
        app.router.add_get(f"{prefix}/ws", self._handle)
        app.router.add_get(f"{prefix}/queue", self._queue)
        app.router.add_get(f"{prefix}/history/{{prompt_id}}", self._history)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
        try:
            yield self
        finally:
            for event in (self.answers, self.looks_up, self.recalls, self.closes):
                event.set()
            await runner.cleanup()


def finished(*nodes: str, error: str | None = None, prompt_id: str = "p") -> dict[str, Any]:
    """An entry of the history with one output for each node."""
    verdict = {"prompt_id": prompt_id, "timestamp": 3}
    if error is not None:
        verdict |= {"node_id": "4", "node_type": "X", "exception_message": error, "traceback": []}
    return {
        "prompt": [0, prompt_id, {}, {}, []],
        "outputs": {node: {"images": [{"filename": f"{node}.png"}]} for node in nodes},
        "meta": {},
        "status": {
            "status_str": "success" if error is None else "error",
            "completed": error is None,
            "messages": [
                ["execution_start", {"prompt_id": prompt_id, "timestamp": 1}],
                ["execution_cached", {"nodes": [], "prompt_id": prompt_id, "timestamp": 2}],
                ["execution_success" if error is None else "execution_error", verdict],
            ],
        },
    }


def jpeg_preview(size_bytes: int) -> bytes:
    return struct.pack(">II", 1, 1) + bytes(size_bytes - 8)


def sleeping(seconds: float, steps: int = 4, seed: int = 0) -> dict[str, Any]:
    """A workflow of the simulated ComfyUI that takes so long and shows previews."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": seed},
        },
        "2": {
            "class_type": "SimSleep",
            "inputs": {"seconds": seconds, "steps": steps, "image": ["1", 0], "seed": seed},
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "relay"}},
    }


@contextmanager
def eager_tasks() -> Iterator[None]:
    """As mitmproxy's event loop makes them."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)
