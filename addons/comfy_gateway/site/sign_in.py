"""``/gateway/signin`` and ``/gateway/signout``: where a browser gets its session, and where it gives it back.

The hooks have checked where the form comes from (``core.people.hosts``). Answers have a body even where they redirect:
only what streams is redacted in files of flows (``hooks.redact``).
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.people import session_cookie
from comfy_gateway.core.people.return_path import safe_return
from comfy_gateway.core.people.roles import SIGN_IN_PATH, SIGN_OUT_PATH
from comfy_gateway.core.people.session_cookie import SignedIn
from comfy_gateway.core.requests.refusals import Refusal, headers_of
from comfy_gateway.service.people.signed_in import SignedInSessions
from comfy_gateway.site import sign_in_page
from comfy_gateway.site.asker import Asker, bad_request
from comfy_gateway.site.refusals import answer

MAX_FORM_BYTES: Final = 16 * 1024
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_FORM_TYPE: Final = "application/x-www-form-urlencoded"

type Enter = Callable[[str, str], Awaitable[SignedIn | Refusal]]
"""Makes a session of a token that came from an address, or says why not."""


class SignInPages:
    """The pages of the modes that have sessions."""

    def __init__(self, sessions: SignedInSessions, enter: Enter | None) -> None:
        """``enter`` is None where browsers sign in by other means: there is no form then."""
        self._sessions = sessions
        self._enter = enter

    def routes(self) -> list[web.RouteDef]:
        """Both pages."""
        found = [web.post(SIGN_OUT_PATH, self.sign_out)]
        if self._enter is not None:
            found += [web.get(SIGN_IN_PATH, self.show), web.post(SIGN_IN_PATH, self.sign_in)]
        return found

    async def show(self, request: web.Request) -> web.Response:
        """The form, or who is signed in already."""
        user = Asker.of(request).user
        if user is not None:
            return _page(sign_in_page.signed_in(user.name))
        return _page(sign_in_page.form(safe_return(request.query.get("next"))))

    async def sign_in(self, request: web.Request) -> web.Response:
        """Take the form; a right token gets the browser a session and sends it where it wanted to go."""
        assert self._enter is not None
        fields = await _fields(request)
        if isinstance(fields, Refusal):
            return answer(fields)
        back = safe_return(fields.get("next"))
        found = await self._enter(fields.get("token", "").strip(), Asker.of(request).peer)
        if isinstance(found, Refusal):
            problem = f"{found.message} {found.details}".strip()
            return _page(sign_in_page.form(back, problem), status=found.status, headers=headers_of(found))
        return _go(back, self._sessions.cookie(found, secure=_is_https(request)))

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the browser's session. Nothing happens to who has none."""
        asker = Asker.of(request)
        session_id = request.headers.get(site_contract.SESSION)
        if session_id is not None and asker.user is not None:
            await self._sessions.end(session_id, asker.user.name)
        removal = session_cookie.removal(secure=_is_https(request))
        if self._enter is not None:
            return _go(SIGN_IN_PATH, removal)
        return _page(sign_in_page.signed_out(), headers={"Set-Cookie": removal})


async def _fields(request: web.Request) -> dict[str, str] | Refusal:
    if request.content_type != _FORM_TYPE:
        return bad_request(f"The form must come as {_FORM_TYPE}.")
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return Refusal(413, "body_too_large", f"The form may have at most {MAX_FORM_BYTES} bytes.")
    try:
        found = parse_qs(body.decode("ascii"), max_num_fields=16, errors="strict")
    except ValueError:
        return bad_request("The form cannot be read.")
    return {name: values[0] for name, values in found.items()}


def _is_https(request: web.Request) -> bool:
    return site_contract.HTTPS in request.headers


def _page(text: str, *, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> web.Response:
    return web.Response(
        status=status, text=text, content_type="text/html", headers={**headers, **sign_in_page.HEADERS}
    )


def _go(path: str, cookie: str) -> web.Response:
    headers = {"Location": path, "Set-Cookie": cookie, "Cache-Control": "no-store"}
    return web.Response(status=303, text="Continue.\n", headers=headers)
