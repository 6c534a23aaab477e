"""Who a request is from, and what has no place here at all."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from mitmproxy import http

from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.hooks import edge
from tests.hooks.stand import ALICE, BOB, NOWHERE, PEER, Pairs, Stand, ask, prompt, socket

TAB = UserId(IdKind.CLIENT, "tab")
BROWSER = ("User-Agent", "Mozilla/5.0")
PAGE = ("Accept", "text/html,application/xhtml+xml")
OPEN = IdentityRules(is_required=False)


@dataclass(frozen=True)
class Case:
    """A request and whose it is."""

    user: UserId | None
    path: str = "/queue"
    headers: Pairs = ()
    remembered: UserId | None = None
    """Whom the browser's own cookie of ours names."""
    rules: IdentityRules = field(default=OPEN)
    is_cookie_set: bool = False


CASES = {
    "header": Case(ALICE, headers=[("X-Comfy-User", "alice")]),
    "header in another case": Case(ALICE, headers=[("x-comfy-USER", "alice")]),
    "header before query": Case(ALICE, "/queue?user_id=bob", [("X-Comfy-User", "alice")]),
    "header before cookie": Case(ALICE, headers=[("X-Comfy-User", "alice")], remembered=BOB, is_cookie_set=True),
    "query": Case(BOB, "/queue?user_id=bob"),
    "query, percent-encoded": Case(UserId(IdKind.NAMED, "b o+b"), "/queue?user_id=b%20o%2Bb"),
    "query before cookie": Case(BOB, "/queue?user_id=bob", remembered=ALICE, is_cookie_set=True),
    "client's own cookie": Case(
        BOB, headers=[("Cookie", "a=1; sso=bob")], rules=IdentityRules(cookie="sso"), remembered=ALICE
    ),
    "client's own cookie that no setting names": Case(None, headers=[("Cookie", "sso=bob")]),
    "our cookie": Case(ALICE, remembered=ALICE),
    "our cookie before client_id": Case(ALICE, "/ws?clientId=tab", remembered=ALICE),
    "clientId": Case(TAB, "/ws?clientId=tab"),
    "client_id": Case(TAB, "/queue?client_id=tab"),
    "client_id before IP": Case(
        TAB, "/queue?client_id=tab", rules=IdentityRules(is_required=False, use_client_ip=True)
    ),
    "client_id that does not count": Case(
        None, "/queue?client_id=tab", rules=IdentityRules(is_required=False, use_client_id=False)
    ),
    "IP": Case(UserId(IdKind.ADDRESS, PEER), rules=IdentityRules(is_required=False, use_client_ip=True)),
    "nobody": Case(None),
    "other header, by the settings": Case(
        ALICE, headers=[("X-Who", "alice")], rules=IdentityRules(header="X-Who")
    ),
    "other query key, by the settings": Case(
        ALICE, "/queue?who=alice", rules=IdentityRules(query_key="who")
    ),
    "a browser is remembered": Case(ALICE, "/?user_id=alice", [BROWSER, PAGE], is_cookie_set=True),
    "a script is not": Case(ALICE, "/queue?user_id=alice"),
    "a browser that is remembered already": Case(ALICE, "/?user_id=alice", [BROWSER, PAGE], remembered=ALICE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_the_first_word_that_counts_names_the_user(stand: Stand, case: Case) -> None:
    stand.change(identity=case.rules)
    headers = list(case.headers)
    if case.remembered is not None:
        headers.append(("Cookie", cookie_of(stand, case.remembered)))
    flow = await stand.exchange(ask(case.path, user=None, headers=headers))
    assert flow.response is not None
    assert flow.response.status_code == 200
    assert flow.metadata.get(edge.USER) == (case.user.key if case.user else None)
    assert flow.response.headers.get("X-Comfy-Session-User") == (case.user.name if case.user else None)
    assert ("Set-Cookie" in flow.response.headers) is case.is_cookie_set


def cookie_of(stand: Stand, user: UserId, *, secure: bool = False) -> str:
    """What a browser sends back."""
    return stand.edge.cookie.set_cookie_header(user, secure=secure).partition(";")[0]


async def test_the_cookie_is_signed_hidden_from_scripts_and_names_its_browser_from_then_on(
    stand: Stand,
) -> None:
    first = await stand.exchange(ask("/?user_id=alice", user=None, headers=[BROWSER, PAGE]))
    assert first.response is not None
    cookie = first.response.headers["Set-Cookie"]
    assert "; HttpOnly; SameSite=Lax" in cookie
    assert "Secure" not in cookie
    pair = cookie.partition(";")[0]
    second = await stand.exchange(ask(user=None, headers=[("Cookie", pair)]))
    assert second.metadata[edge.USER] == ALICE.key
    forged = await stand.exchange(ask(user=None, headers=[("Cookie", pair[:-3] + "AAA")]))
    assert edge.USER not in forged.metadata


async def test_behind_https_the_cookie_is_secure(stand: Stand) -> None:
    stand.change(is_public_https=True)
    flow = await stand.exchange(ask("/?user_id=alice", user=None, headers=[BROWSER, PAGE]))
    assert flow.response is not None
    assert flow.response.headers["Set-Cookie"].endswith("; Secure")


async def test_our_cookie_counts_wherever_it_stands_in_repeated_cookie_headers(stand: Stand) -> None:
    headers = [("Cookie", "a=1"), ("Cookie", cookie_of(stand, ALICE))]
    flow = await stand.arrive(ask(user=None, headers=headers))
    assert flow.metadata[edge.USER] == ALICE.key


async def test_a_client_id_alone_is_never_the_user_whose_tab_has_it(stand: Stand) -> None:
    await stand.arrive(socket("/ws?clientId=tab"))
    flow = await stand.arrive(socket("/ws?clientId=tab", user=None))
    assert flow.metadata[edge.USER] == "client:tab"


async def test_an_unknown_browser_gets_a_name_of_its_own_when_none_is_required(stand: Stand) -> None:
    stand.change(identity=OPEN)
    page = await stand.exchange(ask("/", user=None, headers=[BROWSER, PAGE]))
    assert page.response is not None
    user = page.metadata[edge.USER]
    assert user.startswith("browser:")
    pair = page.response.headers["Set-Cookie"].partition(";")[0]
    poll = await stand.exchange(ask(user=None, headers=[BROWSER, ("Cookie", pair)]))
    assert poll.metadata[edge.USER] == user


REFUSED: dict[str, tuple[Callable[[], http.HTTPFlow], int, str]] = {
    "no id": (lambda: ask("/queue", user=None), 400, "missing_user_id"),
    "no id for a socket without clientId": (lambda: socket("/ws", user=None), 400, "missing_user_id"),
    "no id for the dashboard": (lambda: ask("/gateway/", user=None), 400, "missing_user_id"),
    "two names": (lambda: ask(headers=[("X-Comfy-User", "bob")]), 400, "bad_user_id"),
    "a name that is too long": (lambda: ask(user="x" * 129), 400, "bad_user_id"),
    "a name with a control character": (lambda: ask("/queue?user_id=a%0Ab", user=None), 400, "bad_user_id"),
    "dot segments": (lambda: ask("/assets/..%2f..%2fprompt"), 400, "bad_path"),
    "empty segments": (lambda: ask("//gateway/api/v1/"), 400, "bad_path"),
    "a foreign page": (lambda: ask(headers=[("Origin", "http://evil.example")]), 403, "foreign_origin"),
    "a page without an address": (lambda: ask(headers=[("Origin", "null")]), 403, "foreign_origin"),
    "a rebound name": (lambda: ask(host="evil.example"), 403, "foreign_origin"),
}


@pytest.mark.parametrize(("made", "status", "kind"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_has_no_place_here_is_answered_and_goes_nowhere(
    stand: Stand, made: Callable[[], http.HTTPFlow], status: int, kind: str
) -> None:
    flow = await stand.exchange(made())
    assert flow.response is not None
    assert flow.response.status_code == status
    assert flow.response.json()["error"]["type"] == kind
    assert (flow.request.host, flow.request.port) == NOWHERE
    assert edge.BACKEND not in flow.metadata
    assert flow.response.headers["X-Comfy-Session-Source"] == "gateway"


async def test_a_page_without_an_id_is_a_form_that_asks_for_one(stand: Stand) -> None:
    stand.change(identity=IdentityRules(query_key="who"))
    flow = await stand.exchange(ask("/", user=None, headers=[BROWSER, PAGE]))
    assert flow.response is not None
    assert flow.response.status_code == 400
    assert flow.response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'name="who"' in (flow.response.text or "")


async def test_a_request_without_an_id_is_told_the_ways_to_name_itself(stand: Stand) -> None:
    flow = await stand.exchange(ask(user=None))
    assert flow.response is not None
    message = flow.response.json()["error"]["message"]
    assert "X-Comfy-User" in message
    assert "user_id" in message


async def test_a_refused_body_is_not_taken_in(stand: Stand) -> None:
    """It goes to the site, which answers without reading."""
    flow = await stand.arrive(ask("/upload/image", method="POST", user=None, body=b"x" * 100))
    assert flow.response is None
    assert stand.where(flow) == "site /-/refusal"
    assert flow.request.stream is True


@pytest.mark.parametrize(
    "path",
    ["/assets/index-5f1d3c07.js", "/extensions", "/fonts/a.woff2", "/gateway/healthz", "/gateway/readyz",
     "/gateway/metrics", "/gateway/ui/extension.js"],
)  # fmt: skip
async def test_files_of_the_interface_and_probes_need_no_id(stand: Stand, path: str) -> None:
    flow = await stand.arrive(ask(path, user=None))
    assert flow.response is None
    assert stand.where(flow) in {"duty-0", f"site {path}"}


async def test_a_prompt_whose_head_says_no_name_may_say_it_in_its_body(stand: Stand) -> None:
    flow = await stand.arrive(prompt(b'{"prompt": {}, "client_id": "tab"}', user=None))
    assert flow.metadata[edge.USER] == TAB.key
    assert stand.where(flow) == "duty-1"


async def test_a_path_is_judged_before_anything_is_remembered(stand: Stand) -> None:
    await stand.arrive(socket("/assets/../ws?clientId=tab"))
    assert stand.edge.client_ids.owner("tab") is None
