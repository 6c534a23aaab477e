"""First look at a request: is its path sane, is its page ours, and who is it from?"""

import re
import secrets
from dataclasses import astuple, replace
from typing import Final
from urllib.parse import quote

from mitmproxy import http
from mitmproxy.coretypes.multidict import MultiDict

from comfy_gateway.core.people import roles
from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.cookie import cookie_values
from comfy_gateway.core.people.hosts import (
    OriginVerdict,
    check_origin,
    explain_foreign,
    is_change_from_elsewhere,
)
from comfy_gateway.core.people.identity import (
    Identity,
    RequestFacts,
    explain_missing,
    identify,
    looks_like_browser,
)
from comfy_gateway.core.people.return_path import safe_return
from comfy_gateway.core.people.roles import Role, Standing
from comfy_gateway.core.people.sign_in import SignIn
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.classify import PathRefused, RequestClass, classify, needs_identity, route_of
from comfy_gateway.core.requests.refusals import FOREIGN_ORIGIN, HTTPS_ONLY, MALFORMED, Refusal, bad_path
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.answers import answer, has_body, send_elsewhere, wants_html
from comfy_gateway.hooks.callers import CallerRules, meet, must_use_https
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.fail_closed import fail_closed_async
from comfy_gateway.hooks.forward import peer_of

_METHOD: Final = re.compile(rb"(?!PRI$)[A-Z][A-Z-]{1,31}")
"""Case-sensitive. PRI is the preface of HTTP/2: a server that upgrades on it would read the rest as its frames."""
_VERSIONS: Final = frozenset({"HTTP/1.0", "HTTP/1.1", "HTTP/2.0"})


_NO_QUERY: Final[MultiDict[str, str]] = MultiDict()


def bad_identity(problem: str) -> Refusal:
    """An id was given that cannot be used."""
    return Refusal(400, "bad_user_id", "The user id cannot be used.", problem)


def missing_identity(gateway: Edge) -> Refusal:
    """An id is required and none was given."""
    return Refusal(400, "missing_user_id", explain_missing(gateway.identity))


def decide(flow: http.HTTPFlow, gateway: Edge, *, client_id: str | None = None) -> Identity:
    """Who a request is from; ``client_id`` is the one in a prompt's body. Joins client ids to their user."""
    if gateway.sign_in is not None:
        return Identity(standing_of(flow).user)  # a request's head has said it all
    request = flow.request
    rules = gateway.identity
    query = request.query if "?" in request.path else _NO_QUERY
    client_id = client_id or query.get("clientId") or query.get("client_id")
    cookies = "; ".join(request.headers.get_all("cookie"))
    facts = RequestFacts(
        header=tuple(request.headers.get_all(rules.header)),
        query=tuple(query.get_all(rules.query_key)),
        cookie=cookie_values(cookies, rules.cookie) if rules.cookie and cookies else (),
        remembered=gateway.cookie.read(cookies) if cookies else None,
        client_id=client_id,
        client_id_owner=gateway.client_ids.owner(client_id) if client_id else None,
        peer_ip=peer_of(flow),
        is_browser=looks_like_browser(
            request.headers.get("user-agent"),
            request.headers.get("accept"),
            request.headers.get("sec-fetch-mode"),
        ),
        wants_html=wants_html(request),
        spare_name=secrets.token_hex(8),
    )
    found = identify(facts, rules)
    if found.claim is not None and found.user is not None:
        gateway.client_ids.claim(found.claim, found.user)
    return found


def note(flow: http.HTTPFlow, found: Identity) -> None:
    """Keep the decision with the flow."""
    if found.user is not None:
        flow.metadata[edge.USER] = found.user.key
    if found.remember is not None:
        flow.metadata[edge.REMEMBER] = found.remember.key


def standing_of(flow: http.HTTPFlow) -> Standing:
    """Who sends the request, what they may do, and whether that is proven; nobody before this hook has run.

    What ``core.people.roles`` calls proven needs a sign-in: without one everybody is whoever they say they are.
    """
    key = flow.metadata.get(edge.USER)
    return Standing(
        None if key is None else UserId.from_key(key),
        Role(flow.metadata.get(edge.ROLE, Role.USER)),
        is_proven=bool(flow.metadata.get(edge.PROVEN)),
    )


class IdentityHook:
    """Refuses what has no place here and marks the rest with class, user and role."""

    name = "gateway-identity"

    def __init__(self, door: Door, rules: CallerRules | None = None) -> None:
        self._door = door
        self._rules = rules or CallerRules()

    @fail_closed_async
    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Runs before a body is read."""
        caller = meet(flow, self._rules)
        gateway = self._door.edge
        if gateway is None or flow.metadata.get(edge.SETTLED):
            return
        request = flow.request
        if not _METHOD.fullmatch(request.data.method) or request.http_version not in _VERSIONS:
            # mitmproxy would pass it on as it came, and the server's complaint quotes the line with its own path.
            request.method, request.http_version = (
                "POST",
                "HTTP/1.1",
            )  # the site would stumble over it as well
            answer(flow, gateway, MALFORMED)
            return
        try:
            request_class = classify(request.method, request.path, gateway.route_rules)
        except PathRefused as error:
            answer(flow, gateway, bad_path(str(error)))
            return
        flow.metadata[edge.CLASS] = str(request_class)
        if (refusal := _foreign(flow, caller, gateway)) is not None:
            answer(flow, gateway, refusal)
            return
        own_path = route_of(request.path) if request_class is RequestClass.RESERVED else None
        if own_path not in roles.PROBES and must_use_https(flow, caller, self._rules):
            _ask_for_https(flow, caller, gateway)
            return
        if gateway.sign_in is None:
            self._take_at_its_word(flow, caller, gateway, request_class)
        else:
            await _ask_sign_in(flow, caller, gateway, gateway.sign_in, own_path)
        if own_path is None or flow.metadata.get(edge.SETTLED):
            return
        refusal = roles.refuse(own_path, standing_of(flow).role, has_sign_in=gateway.sign_in is not None)
        if refusal is not None:
            answer(flow, gateway, refusal)

    def _take_at_its_word(
        self, flow: http.HTTPFlow, caller: Caller, gateway: Edge, request_class: RequestClass
    ) -> None:
        flow.metadata[edge.ROLE] = str(Role.OPERATOR if caller.is_local else Role.USER)
        found = decide(flow, gateway)
        if found.problem is not None:
            answer(flow, gateway, bad_identity(found.problem))
            return
        note(flow, found)
        if request_class is RequestClass.PROMPT:
            return  # its body may still name a client_id
        if (
            found.user is None
            and gateway.identity.is_required
            and needs_identity(request_class, flow.request.path)
        ):
            answer(flow, gateway, missing_identity(gateway), name_key=gateway.identity.query_key)


async def _ask_sign_in(
    flow: http.HTTPFlow, caller: Caller, gateway: Edge, sign_in: SignIn, own_path: str | None
) -> None:
    if own_path is not None and roles.is_open(own_path):
        found = sign_in.session_of(caller)
    else:
        found = await sign_in.recognise(caller)
    if found.refusal is not None:
        if found.is_sent_to_page and caller.is_page_load and not has_body(flow.request):
            back = quote(safe_return(flow.request.path), safe="")
            send_elsewhere(flow, f"{roles.SIGN_IN_PATH}?next={back}", 303)
        else:
            answer(flow, gateway, found.refusal)
        return
    standing = found.standing
    if standing.user is not None:
        flow.metadata[edge.USER] = standing.user.key
    flow.metadata[edge.ROLE] = str(standing.role)
    flow.metadata[edge.PROVEN] = standing.is_proven
    if found.session is not None:
        flow.metadata[edge.SESSION] = found.session.session_id
    if found.remember is not None:
        flow.metadata[edge.REMEMBER_SESSION] = list(astuple(found.remember))


def _foreign(flow: http.HTTPFlow, caller: Caller, gateway: Edge) -> Refusal | None:
    """Why a page may not send this, or None; notes whether it is one of our own pages."""
    headers = flow.request.headers
    origin = headers.get("origin")
    verdict = check_origin(caller.host, origin, gateway.allowed_hosts)
    flow.metadata[edge.OURS] = verdict is OriginVerdict.OURS
    if verdict is OriginVerdict.FOREIGN:
        return replace(FOREIGN_ORIGIN, details=explain_foreign(caller.host, origin, gateway.allowed_hosts))
    if is_change_from_elsewhere(flow.request.method, origin, headers.get("sec-fetch-site")):
        return replace(
            FOREIGN_ORIGIN, details="This request comes from a page of another site (Sec-Fetch-Site)."
        )
    return None


def _ask_for_https(flow: http.HTTPFlow, caller: Caller, gateway: Edge) -> None:
    """Also for who has just sent a token in plain text: it is not answered, so that somebody notices."""
    request = flow.request
    if caller.is_page_load and not has_body(request) and caller.host:
        send_elsewhere(flow, f"https://{caller.host}{request.path}", 308)
    else:
        answer(flow, gateway, HTTPS_ONLY)
