"""Who asks, what their body says, and how they are answered."""

from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from comfy_gateway.core import loose_json, site_contract
from comfy_gateway.core.people.roles import Role, Standing
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.prompts.visibility import is_own
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Source

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of an order such as ``{"delete": [ids]}``."""
MAX_IDS: Final = 1000
"""In one order. Each may be a question to the database and to a server."""


class BadOrder(Exception):
    """What is wrong with a request, in the words of ``refusal``."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Asker:
    """As the hooks' headers say it."""

    user: UserId | None
    peer: str
    role: Role = Role.USER
    is_proven: bool = False

    @classmethod
    def of(cls, request: web.Request) -> "Asker":
        """Who sends this request."""
        key = request.headers.get(site_contract.USER)
        return cls(
            None if key is None else UserId.from_key(key),
            request.headers.get(site_contract.PEER, ""),
            Role(request.headers.get(site_contract.ROLE, Role.USER)),
            is_proven=site_contract.PROVEN in request.headers,
        )

    @property
    def standing(self) -> Standing:
        """Who that is, and what they may do."""
        return Standing(self.user, self.role, self.is_proven)

    @property
    def key(self) -> str | None:
        """``UserId.key``, or None for nobody known."""
        return None if self.user is None else self.user.key

    def sid_of(self, record: PromptRecord) -> str | None:
        """The client's own socket id of a prompt, where the prompt is the asker's: the server knows it by another."""
        return record.sid if record.sid and is_own(self.key, record.user_key) else None


async def order_in(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body, empty where there is none. Raises BadOrder."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadOrder(
                Refusal(413, "body_too_large", f"The body may have at most {MAX_BODY_BYTES} bytes.")
            )
    if not body.strip():
        return {}
    try:
        document = loose_json.read(bytes(body))
    except ValueError:
        raise BadOrder(bad_request("The body is no JSON.")) from None
    if not isinstance(document, dict):
        raise BadOrder(bad_request("The body must be a JSON object."))
    return document


def ids_in(order: dict[str, Any], name: str) -> list[str]:
    """A list of prompt ids; what is no printable text cannot be one and is left out.

    Raises BadOrder for what is no list, or one that is too long.
    """
    ids = order.get(name, [])
    if not isinstance(ids, list):
        raise BadOrder(bad_request(f"{name!r} must be a list of prompt ids."))
    if len(ids) > MAX_IDS:
        raise BadOrder(
            Refusal(413, "too_many_ids", f"{name!r} may name at most {MAX_IDS} prompts in one request.")
        )
    return list(dict.fromkeys(one for one in ids if isinstance(one, str) and one.isprintable()))


def bad_request(why: str) -> Refusal:
    """A request that cannot be read."""
    return Refusal(400, "bad_request", "The request cannot be read.", why)


def told(document: Any, *, status: int = 200, source: Source = Source.GATEWAY) -> web.Response:
    """The document as an answer; ``source`` is the one server that it comes from, if it is one."""
    return told_bytes(written(document), status=status, source=source)


def told_bytes(body: bytes, *, status: int = 200, source: Source = Source.GATEWAY) -> web.Response:
    """JSON as an answer."""
    headers = {"Cache-Control": "no-store"}
    if source is not Source.GATEWAY:
        headers[site_contract.SOURCE] = str(source)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def written(document: Any) -> bytes:
    """JSON. NaN becomes null, which a browser can read; what orjson cannot write is written as Python does."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return loose_json.write(document)
