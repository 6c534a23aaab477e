"""Takes off a request what says whose it is, before anything else is done with it.

What only its sender's own proxy may say, and every credential, is out of the flow from here on: it is not forwarded,
not shown in mitmweb and not written into a file of flows.
"""

from dataclasses import dataclass, field, replace

from mitmproxy import http

from comfy_gateway.core.people.callers import (
    Caller,
    TrustedProxies,
    find_caller,
    is_forwarding,
    without_query_key,
)
from comfy_gateway.core.people.cookie import COOKIE_NAME, cookie_values, without_cookies
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.session_cookie import NAMES, name_of
from comfy_gateway.core.people.sign_in import AuthMode
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.answers import wants_html
from comfy_gateway.hooks.header_fields import names_of, rewrite


@dataclass(frozen=True)
class CallerRules:
    """What the settings say about callers."""

    mode: AuthMode = AuthMode.NONE
    trusted: TrustedProxies = field(default_factory=TrustedProxies)
    identity: IdentityRules = field(default_factory=IdentityRules)
    is_public_https: bool = False
    has_tls: bool = False
    """We speak HTTPS ourselves; plain HTTP is then for trusted proxies and probes."""


def meet(flow: http.HTTPFlow, rules: CallerRules) -> Caller:
    """Who is at the other end. With sign-in nothing but the result says any more who that might be."""
    request = flow.request
    headers = request.headers
    caller = find_caller(
        headers.get_all,
        peer=flow.client_conn.peername[0] if flow.client_conn.peername else "",
        host=request.host_header or "",
        is_tls=flow.client_conn.tls_established,
        is_public_https=rules.is_public_https,
        is_page_load=wants_html(request),
        trusted=rules.trusted,
    )
    cookies = "; ".join(headers.get_all("cookie"))
    if cookies:
        caller = replace(caller, sessions=cookie_values(cookies, name_of(secure=caller.is_https)))
    ours = NAMES
    naming = {rules.identity.header.lower()}
    if rules.mode is not AuthMode.NONE:
        caller = replace(
            caller,
            authorization=tuple(headers.get_all("authorization")),
            named=tuple(headers.get_all(rules.identity.header)) if caller.is_by_proxy else (),
        )
        for name in (*naming, "authorization", "proxy-authorization"):
            headers.pop(name, None)
        naming = set()
        ours |= {COOKIE_NAME} | ({rules.identity.cookie} if rules.identity.cookie else set())
        request.path = without_query_key(request.path, rules.identity.query_key)
    if told := {name for name in names_of(headers) - naming if is_forwarding(name)}:
        rewrite(headers, drop=told)
    if cookies and (rest := without_cookies(cookies, ours)) != cookies:
        headers.pop("cookie")
        if rest:
            headers["Cookie"] = rest
    flow.metadata[edge.PEER] = caller.address
    flow.metadata[edge.HTTPS] = caller.is_https
    flow.metadata[edge.HOST] = caller.host
    return caller


def must_use_https(flow: http.HTTPFlow, caller: Caller, rules: CallerRules) -> bool:
    """Whether the request came in plain text where it need not have."""
    return rules.has_tls and not flow.client_conn.tls_established and not caller.is_by_proxy
