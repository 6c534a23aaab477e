"""What the hooks do with what sign-in says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.roles import NOBODY, Role, Standing
from comfy_gateway.core.people.session_cookie import SignedIn
from comfy_gateway.core.people.sign_in import BEARER, AuthMode, Recognised, not_signed_in, wrong_credentials
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.identity import standing_of
from tests.hooks.stand import ALICE, PEER, Stand, ask, prompt, socket

PAGE = ("Accept", "text/html")
SESSION = SignedIn("alice", "seal", "session-id", 5)
PROVEN = Standing(ALICE, Role.USER, is_proven=True)
OPERATOR = Standing(ALICE, Role.OPERATOR, is_proven=True)


@dataclass
class StandInSignIn:
    """Implements ``core.people.sign_in.SignIn``: says what it was told to."""

    answer: Recognised = field(default_factory=lambda: Recognised(PROVEN, session=SESSION))
    by_session: Recognised = field(default_factory=Recognised)
    asked: list[Caller] = field(default_factory=list)

    async def recognise(self, caller: Caller) -> Recognised:
        self.asked.append(caller)
        return self.answer

    def session_of(self, caller: Caller) -> Recognised:
        return self.by_session


def signing_in(stand: Stand, answer: Recognised | None = None) -> StandInSignIn:
    """Have the stand's people sign in."""
    sign_in = StandInSignIn() if answer is None else StandInSignIn(answer)
    stand.meet(mode=AuthMode.TOKENS)
    stand.change(sign_in=sign_in)
    return sign_in


async def test_who_has_signed_in_is_that_user_whatever_else_is_said(stand: Stand) -> None:
    sign_in = signing_in(stand)
    stand.edge.client_ids.claim("bobs-tab", UserId(IdKind.NAMED, "bob"))
    for flow in (
        ask("/system_stats?user_id=bob", user="bob"),
        prompt(b'{"prompt": {}, "client_id": "bobs-tab"}', user="bob"),
        socket("/ws?clientId=bobs-tab", user="bob"),
    ):
        await stand.arrive(flow)
        assert standing_of(flow) == PROVEN
        assert "bob" not in str(flow.request.headers).replace("bobs-tab", "")
    assert {caller.address for caller in sign_in.asked} == {PEER}


async def test_without_sign_in_nothing_is_proven(stand: Stand) -> None:
    assert standing_of(ask()) == NOBODY
    flow = await stand.arrive(ask())
    assert standing_of(flow) == Standing(ALICE, Role.OPERATOR, is_proven=False)


@pytest.mark.parametrize(
    ("headers", "method", "body", "where"),
    [
        ([PAGE], "GET", None, "303"),
        ([PAGE], "POST", b"x", "site /-/refusal"),
        ([PAGE], "GET", b"x", "site /-/refusal"),
        ([], "GET", None, "401"),
        ([], "POST", b"x", "site /-/refusal"),
    ],
)
async def test_only_a_page_load_is_sent_to_the_page(
    stand: Stand, headers: Sequence[tuple[str, str]], method: str, body: bytes | None, where: str
) -> None:
    signing_in(stand, Recognised(refusal=not_signed_in(BEARER), is_sent_to_page=True))
    flow = await stand.arrive(ask("/a?b=1&c=/", headers=headers, method=method, body=body))
    assert stand.where(flow) == where
    if flow.response is not None and where == "303":
        assert flow.response.headers["Location"] == "/gateway/signin?next=%2Fa%3Fb%3D1%26c%3D%2F"


async def test_a_wrong_credential_is_said_even_to_a_page_load(stand: Stand) -> None:
    signing_in(stand, Recognised(refusal=wrong_credentials(BEARER)))
    flow = await stand.exchange(ask("/", headers=[PAGE]))
    assert flow.response is not None
    assert flow.response.status_code == 401
    assert flow.response.headers["WWW-Authenticate"] == BEARER


async def test_nothing_goes_up_without_identity_the_interface_neither(stand: Stand) -> None:
    signing_in(stand, Recognised(refusal=Refusal(401, "sign_in_required", "no")))
    stand.change(identity=stand.edge.identity.__class__(is_required=False))
    for path in ("/", "/assets/index.js", "/extensions", "/queue", "/ws", "/gateway/", "/gateway/metrics"):
        assert stand.where(await stand.arrive(ask(path, user=None))) == "401", path
    for path in ("/gateway/healthz", "/gateway/readyz", "/gateway/ui/x.js", "/gateway/signin?next=/"):
        assert stand.where(await stand.arrive(ask(path, user=None))) == f"site {path}"


async def test_a_page_of_another_site_is_refused_before_anybody_is_asked(stand: Stand) -> None:
    sign_in = signing_in(stand)
    for headers in ([("Origin", "http://evil.example")], [("Sec-Fetch-Site", "cross-site")]):
        assert stand.where(await stand.arrive(ask("/free", method="POST", headers=headers))) == "403"
    assert stand.where(await stand.arrive(ask("/a/../b"))) == "400"
    assert sign_in.asked == []


async def test_the_site_is_told_user_role_session_and_scheme(stand: Stand) -> None:
    sign_in = signing_in(stand, Recognised(OPERATOR, session=SESSION))
    flow = await stand.arrive(ask("/gateway/api/v1/x"))
    headers = flow.request.headers
    assert headers["X-Gateway-Site-User"] == ALICE.key
    assert headers["X-Gateway-Site-Role"] == "operator"
    assert headers["X-Gateway-Site-Proven"] == "1"
    assert headers["X-Gateway-Site-Session"] == "session-id"
    assert "X-Gateway-Site-Https" not in headers
    sign_in.answer = Recognised(PROVEN)
    flow = await stand.exchange(ask("/gateway/api/v1/x"))
    assert flow.response is not None
    assert flow.response.json()["error"]["type"] == "operators_only"


async def test_the_sign_in_page_knows_who_comes_again(stand: Stand) -> None:
    sign_in = signing_in(stand)
    sign_in.by_session = Recognised(PROVEN, session=SESSION)
    flow = await stand.arrive(ask("/gateway/signin"))
    assert flow.request.headers["X-Gateway-Site-User"] == ALICE.key
    assert sign_in.asked == []


async def test_a_session_to_be_kept_is_noted_without_its_signature(stand: Stand) -> None:
    signing_in(stand, Recognised(PROVEN, remember=SESSION))
    flow = await stand.arrive(ask("/"))
    assert flow.metadata[edge.REMEMBER_SESSION] == ["alice", "seal", "session-id", 5]


class BrokenSignIn(StandInSignIn):
    """Has a bug."""

    async def recognise(self, caller: Caller) -> Recognised:
        raise RuntimeError("broken")


async def test_a_way_in_that_breaks_lets_nobody_in(stand: Stand) -> None:
    stand.meet(mode=AuthMode.TOKENS)
    stand.change(sign_in=BrokenSignIn())
    assert stand.where(await stand.arrive(ask())) == "503"
