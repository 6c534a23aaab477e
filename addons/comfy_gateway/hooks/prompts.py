"""POST /prompt: the one request whose body and answer are read."""

from mitmproxy import http

from comfy_gateway.core.classify import RequestClass
from comfy_gateway.core.prompt_body import PromptBody, accepted_prompt_id
from comfy_gateway.core.prompts import PromptRecord
from comfy_gateway.core.refusals import (
    MAX_PROMPT_BYTES,
    PROMPT_ID_TAKEN,
    PROMPT_TOO_LARGE,
    PROMPT_WITHOUT_LENGTH,
    Refusal,
    bad_prompt,
)
from comfy_gateway.core.socket_ids import upstream_sid
from comfy_gateway.core.upstream import Source
from comfy_gateway.core.users import UserId
from comfy_gateway.hooks import edge, forward
from comfy_gateway.hooks.answers import answer, answer_here
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.fail_closed import fail_closed, fail_closed_async
from comfy_gateway.hooks.identity import bad_identity, decide, missing_identity, note

MAX_ANSWER_BYTES = 10 * 1024 * 1024
"""An answer to a prompt is small, but node_errors of a huge graph are not tiny."""
SOCKET_WAIT_S = 5.0


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
    """Names the owner of each prompt to ComfyUI, sends it on, and counts the accepted ones."""

    name = "gateway-prompts"

    def __init__(self, door: Door) -> None:
        self._door = door

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
        if gateway is None:
            raise RuntimeError("the gateway ended while a prompt was on its way")
        try:
            body = PromptBody.parse(flow.request.raw_content or b"")
        except ValueError as error:
            answer_here(flow, bad_prompt(str(error)))
            return
        found = decide(flow, gateway, client_id=body.client_id)
        if found.problem is not None:
            answer_here(flow, bad_identity(found.problem))
            return
        if found.user is None and gateway.identity.is_required:
            answer_here(flow, missing_identity(gateway))
            return
        note(flow, found)
        known = gateway.ledger.find(body.prompt_id) if body.prompt_id is not None else None
        if known is not None and known.user_key != (found.user.key if found.user else None):
            # The prompt's id is the key to its results; nobody may put another prompt under it.
            answer_here(flow, PROMPT_ID_TAKEN)
            return
        await self._send(flow, gateway, body, found.user)

    async def _send(self, flow: http.HTTPFlow, gateway: Edge, body: PromptBody, user: UserId | None) -> None:
        sid = body.client_id or ""
        try:
            content = body.with_client_id(upstream_sid(gateway.keys, user, sid))
        except ValueError as error:
            answer_here(flow, bad_prompt(str(error)))
            return
        backend = gateway.routes.current(user)
        if sid:
            # Its first events must not come before its socket on that server is open. A socket that cannot be
            # opened in time does not hold the prompt back: the relay makes up the ending.
            await gateway.relay.is_listening(user, sid, timeout_s=SOCKET_WAIT_S)
            backend = gateway.routes.current(user)  # the route may have moved meanwhile
        flow.request.raw_content = content
        flow.request.headers["Content-Length"] = str(len(content))
        flow.metadata[edge.CLIENT_ID] = sid
        flow.metadata[edge.PROMPT] = True
        forward.announce(flow, is_https=gateway.is_public_https)
        forward.to_backend(flow, backend)
        gateway.activity.begin(backend.id)
        flow.metadata[edge.TRANSFER] = backend.id

    def response(self, flow: http.HTTPFlow) -> None:
        """Note an accepted prompt. A refused one, whatever its reason, counts for nothing."""
        gateway = self._door.edge
        if edge.is_recorded(flow) or gateway is None or flow.response is None:
            return
        if not flow.metadata.get(edge.PROMPT):
            return
        prompt_id = accepted_prompt_id(flow.response.status_code, flow.response.raw_content or b"")
        if prompt_id is None:
            return
        flow.response.headers["X-Comfy-Prompt-Id"] = prompt_id
        user_key = flow.metadata.get(edge.USER)
        gateway.ledger.accept(
            PromptRecord(
                prompt_id,
                user_key,
                flow.metadata[edge.CLIENT_ID],
                flow.metadata[edge.BACKEND],
            )
        )
        gateway.meters.prompt_accepted(Source(flow.metadata[edge.SOURCE]))
        if user_key is not None:
            gateway.bursts.prompt_accepted(UserId.from_key(user_key))


def _is_prompt(flow: http.HTTPFlow) -> bool:
    return flow.metadata.get(edge.CLASS) == RequestClass.PROMPT
