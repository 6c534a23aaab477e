"""POST /prompt: the one request whose body and answer are read."""

from urllib.parse import quote
from weakref import WeakKeyDictionary

from mitmproxy import http

from comfy_gateway.core.errors import PromptRefused
from comfy_gateway.core.people.cookie import COOKIE_NAME
from comfy_gateway.core.prompts.body import PromptBody
from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.core.requests.refusals import (
    MAX_PROMPT_BYTES,
    PROMPT_TOO_LARGE,
    PROMPT_WITHOUT_LENGTH,
    Refusal,
    bad_prompt,
)
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.hooks import edge, forward
from comfy_gateway.hooks.answers import answer, answer_here
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.fail_closed import fail_closed, fail_closed_async
from comfy_gateway.hooks.identity import bad_identity, decide, missing_identity, note
from comfy_gateway.service.prompts.submission import OnItsWay, Reply, recordable, recorded

PROMPT_ID = "X-Comfy-Prompt-Id"
SESSION_HEADERS = "x-comfy-session-"


def refuse_unread(request: http.Request) -> Refusal | None:
    """Why the body of a prompt is not taken in, or None when it may be read."""
    length = request.headers.get_all("content-length")
    if len(length) != 1 or "transfer-encoding" in request.headers or not length[0].isdecimal():
        return PROMPT_WITHOUT_LENGTH
    if int(length[0]) > MAX_PROMPT_BYTES:
        return PROMPT_TOO_LARGE
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        return Refusal(415, "encoded_prompt", "A prompt must come without a Content-Encoding.")
    return None


class PromptsHook:
    """Hands each prompt to the submission, sends it on, and hears the server's answer."""

    name = "gateway-prompts"

    def __init__(self, door: Door) -> None:
        self._door = door
        self._on_their_way: WeakKeyDictionary[http.HTTPFlow, OnItsWay] = WeakKeyDictionary()

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse what must not be read; everything else of this class is buffered by mitmproxy."""
        gateway = self._door.edge
        if gateway is None or flow.metadata.get(edge.SETTLED) or not _is_prompt(flow):
            return
        refusal = refuse_unread(flow.request)
        if refusal is not None:
            answer(flow, gateway, refusal)

    @fail_closed_async
    async def request(self, flow: http.HTTPFlow) -> None:
        """The body is here: who sends it is known for certain, and where it goes is decided now."""
        gateway = self._door.edge
        if flow.metadata.get(edge.SETTLED) or not _is_prompt(flow):
            return
        way = None
        try:
            if gateway is None:
                raise RuntimeError("the gateway ended while a prompt was on its way")
            way = await self._prepare(flow, gateway)
        finally:
            if way is None:
                flow.request.content = recordable(flow.request.raw_content or b"")
        if way is not None:
            self._send(flow, gateway, way)

    async def _prepare(self, flow: http.HTTPFlow, gateway: Edge) -> OnItsWay | None:
        """The prompt, ready to be sent; None when the flow is answered already."""
        raw = flow.request.raw_content or b""
        try:
            body = PromptBody.parse(raw)
        except ValueError as error:
            answer_here(flow, bad_prompt(str(error)))
            return None
        found = decide(flow, gateway, client_id=body.client_id)
        if found.problem is not None:
            answer_here(flow, bad_identity(found.problem))
            return None
        if found.user is None and gateway.identity.is_required:
            answer_here(flow, missing_identity(gateway))
            return None
        note(flow, found)
        try:
            ready = await gateway.submission.prepare(found.user, body, raw, peer=forward.peer_of(flow))
        except PromptRefused as refused:
            answer_here(flow, refused.refusal)
            return None
        if isinstance(ready, OnItsWay):
            return ready
        flow.metadata[edge.SETTLED] = True
        flow.response = http.Response.make(ready.status)
        _replace(flow, ready)
        return None

    def _send(self, flow: http.HTTPFlow, gateway: Edge, way: OnItsWay) -> None:
        self._on_their_way[flow] = way
        flow.request.raw_content = way.content
        flow.request.headers["Content-Length"] = str(len(way.content))
        flow.request.headers["Accept-Encoding"] = "identity"
        flow.metadata[edge.PROMPT] = True
        forward.announce(flow, is_https=gateway.is_public_https)
        forward.to_backend(flow, way.backend)
        gateway.activity.begin(way.backend.id)
        flow.metadata[edge.TRANSFER] = way.backend.id

    async def response(self, flow: http.HTTPFlow) -> None:
        """The server's answer is here, whole unless it is too long to be one to a prompt."""
        way = self._arrived(flow)
        gateway = self._door.edge
        if way is None or gateway is None or flow.response is None:
            return
        body = None if flow.response.stream else flow.response.get_content(strict=False)
        reply = await gateway.submission.answered(way, flow.response.status_code, body)
        if reply is not None and not flow.response.stream:
            _replace(flow, reply)

    def error(self, flow: http.HTTPFlow) -> None:
        """There will be no answer. A connection that was never open has carried nothing."""
        way = self._arrived(flow)
        gateway = self._door.edge
        if way is not None and gateway is not None:
            was_sent = flow.server_conn.timestamp_tcp_setup is not None
            gateway.submission.unanswered(way, was_sent=was_sent)

    def done(self) -> None:
        """mitmproxy now writes flows that have not ended into its file, too."""
        for flow in tuple(self._on_their_way):
            self._arrived(flow)

    def _arrived(self, flow: http.HTTPFlow) -> OnItsWay | None:
        """The prompt that this flow has carried. mitmproxy may record the flow from now on: secrets are taken out."""
        way = self._on_their_way.pop(flow, None)
        if way is not None and (kept := recorded(way)) is not way.content:
            flow.request.content = kept
        return way


def _replace(flow: http.HTTPFlow, reply: Reply) -> None:
    """Answer with this. What the server said about its own answer goes with it, but for an answer of its own."""
    response = flow.response
    assert response is not None
    if reply.status != response.status_code or str(reply.source) != flow.metadata.get(edge.SOURCE):
        flow.response = response = http.Response.make(
            reply.status, b"", http.Headers(_of_ours(response.headers))
        )
        response.headers["Content-Type"] = "application/json; charset=utf-8"
        response.headers["Cache-Control"] = "no-store"
    if reply.source is not Source.GATEWAY:
        response.headers["X-Comfy-Session-Source"] = str(reply.source)
        flow.metadata[edge.SOURCE] = str(reply.source)
    response.content = reply.body
    response.headers.pop(PROMPT_ID, None)
    if reply.prompt_id is not None:
        # An id of another alphabet would be no header.
        response.headers[PROMPT_ID] = reply.prompt_id if reply.prompt_id.isascii() else quote(reply.prompt_id)


def _of_ours(headers: http.Headers) -> list[tuple[bytes, bytes]]:
    """What the router has said about the session and the connection."""
    return [
        (name, value)
        for name, value in headers.fields
        if name.lower().startswith(SESSION_HEADERS.encode())
        or name.lower() == b"connection"
        or (name.lower() == b"set-cookie" and value.startswith(f"{COOKIE_NAME}=".encode()))
    ]


def _is_prompt(flow: http.HTTPFlow) -> bool:
    return flow.metadata.get(edge.CLASS) == RequestClass.PROMPT
