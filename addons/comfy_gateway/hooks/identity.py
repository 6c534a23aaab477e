"""First look at a request: is its path sane, is its page ours, and who is it from?"""

import re
import secrets
from typing import Final

from mitmproxy import http

from comfy_gateway.core.classify import (
    PathRefused,
    RequestClass,
    classify,
    needs_identity,
)
from comfy_gateway.core.cookie import cookie_values
from comfy_gateway.core.hosts import OriginVerdict, check_origin, explain_foreign
from comfy_gateway.core.identity import (
    Identity,
    RequestFacts,
    explain_missing,
    identify,
    looks_like_browser,
)
from comfy_gateway.core.refusals import FOREIGN_ORIGIN, MALFORMED, Refusal, bad_path
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.answers import answer, wants_html
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.fail_closed import fail_closed
from comfy_gateway.hooks.forward import peer_of

_METHOD: Final = re.compile(rb"(?!PRI$)[A-Z][A-Z-]{1,31}")
"""Case-sensitive. PRI is the preface of HTTP/2: a server that upgrades on it would read the rest as its frames."""
_VERSIONS: Final = frozenset({"HTTP/1.0", "HTTP/1.1", "HTTP/2.0"})


def bad_identity(problem: str) -> Refusal:
    """An id was given that cannot be used."""
    return Refusal(400, "bad_user_id", "The user id cannot be used.", problem)


def missing_identity(gateway: Edge) -> Refusal:
    """An id is required and none was given."""
    return Refusal(400, "missing_user_id", explain_missing(gateway.identity))


def decide(flow: http.HTTPFlow, gateway: Edge, *, client_id: str | None = None) -> Identity:
    """Who a request is from; ``client_id`` is the one in a prompt's body. Joins client ids to their user."""
    request = flow.request
    rules = gateway.identity
    client_id = client_id or request.query.get("clientId") or request.query.get("client_id")
    cookies = "; ".join(request.headers.get_all("cookie"))
    facts = RequestFacts(
        header=tuple(request.headers.get_all(rules.header)),
        query=tuple(request.query.get_all(rules.query_key)),
        cookie=cookie_values(cookies, rules.cookie) if rules.cookie else (),
        remembered=gateway.cookie.read(cookies),
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


class IdentityHook:
    """Refuses what has no place here and marks the rest with class and user."""

    name = "gateway-identity"

    def __init__(self, door: Door) -> None:
        self._door = door

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Runs before a body is read."""
        gateway = self._door.edge
        if gateway is None or flow.metadata.get(edge.SETTLED):
            return
        request = flow.request
        if not _METHOD.fullmatch(request.data.method) or request.http_version not in _VERSIONS:
            # mitmproxy would pass it on as it came, and the server's complaint quotes the line with its own path.
            answer(flow, gateway, MALFORMED)
            return
        try:
            request_class = classify(request.method, request.path, gateway.route_rules)
        except PathRefused as error:
            answer(flow, gateway, bad_path(str(error)))
            return
        flow.metadata[edge.CLASS] = str(request_class)
        host, origin = request.host_header or "", request.headers.get("origin")
        verdict = check_origin(host, origin, gateway.allowed_hosts)
        if verdict is OriginVerdict.FOREIGN:
            why = explain_foreign(host, origin, gateway.allowed_hosts)
            answer(
                flow,
                gateway,
                Refusal(
                    FOREIGN_ORIGIN.status,
                    FOREIGN_ORIGIN.type,
                    FOREIGN_ORIGIN.message,
                    why,
                ),
            )
            return
        flow.metadata[edge.OURS] = verdict is OriginVerdict.OURS
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
            and needs_identity(request_class, request.path)
        ):
            answer(
                flow,
                gateway,
                missing_identity(gateway),
                name_key=gateway.identity.query_key,
            )
