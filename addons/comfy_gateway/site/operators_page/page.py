"""``/gateway/`` and its files. Operators alone get any of it; who they are the hooks have checked."""

import hashlib
from pathlib import Path
from typing import Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import Outcome
from comfy_gateway.core.requests.refusals import UNKNOWN_PAGE
from comfy_gateway.service.life.operations import Operations
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.site.api.operators import for_operators
from comfy_gateway.site.api.said import duty_said, session_said
from comfy_gateway.site.refusals import answer

PATH: Final = "/gateway/"
FILES_PATH: Final = "/gateway/page/"
_FOLDER: Final = Path(__file__).parent
_TYPES: Final = {".js": "text/javascript", ".css": "text/css"}
_NOT_SNIFFED: Final = {"X-Content-Type-Options": "nosniff"}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        " form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    **_NOT_SNIFFED,
}


class OperatorsPage:
    """The page as it is when it is asked for; from there on its scripts follow the API's stream."""

    def __init__(self, *, operations: Operations, pool: DutyPool, ledger: Ledger, clock: Clock) -> None:
        self._operations = operations
        self._pool = pool
        self._ledger = ledger
        self._clock = clock
        self._files = {
            path.name: path.read_bytes() for path in (_FOLDER / "files").iterdir() if path.suffix in _TYPES
        }
        self._tags = {name: hashlib.sha256(body).hexdigest()[:32] for name, body in self._files.items()}
        self._templates = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[web.RouteDef]:
        """The page, with or without its slash, and its files."""
        return [
            web.get(PATH.rstrip("/"), for_operators(self.with_slash)),
            web.get(PATH, for_operators(self.page)),
            web.get(FILES_PATH + "{name}", for_operators(self.file)),
        ]

    async def with_slash(self, _request: web.Request) -> web.StreamResponse:
        """There is one address."""
        return web.Response(status=308, headers={"Location": PATH, "Cache-Control": "no-store"})

    async def page(self, _request: web.Request) -> web.StreamResponse:
        """The whole page, readable before any script has run."""
        text = self._templates.get_template("page.html").render(
            now=self._clock.now(),
            sessions=[session_said(view) for view in self._operations.all()],
            servers=duty_said(self._pool, self._ledger),
            states=list(State),
            events=list(Event),
            outcomes=list(Outcome),
        )
        return web.Response(text=text, content_type="text/html", headers=HEADERS)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A script or a style; 304 for who has it."""
        name = request.match_info["name"]
        if name not in self._files:
            return answer(UNKNOWN_PAGE)
        headers = {"Cache-Control": "private, no-cache", **_NOT_SNIFFED}
        tag = self._tags[name]
        if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
            found = web.Response(status=304, headers=headers)
        else:
            content_type = _TYPES[Path(name).suffix]
            found = web.Response(
                body=self._files[name], content_type=content_type, charset="utf-8", headers=headers
            )
        found.etag = tag
        return found
