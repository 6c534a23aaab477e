"""Who is recognised in each mode, and who is not."""

import asyncio
import base64
from dataclasses import replace

import pytest

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.accounts import Account, Accounts, token_of
from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.roles import Role, Standing
from comfy_gateway.core.people.session_cookie import SessionCookies, SignedIn
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.service.people.accounts import AccountBook
from comfy_gateway.service.people.attempts import AttemptLimits, Attempts
from comfy_gateway.service.people.sign_in_basic import BasicSignIn
from comfy_gateway.service.people.sign_in_proxy import ProxySignIn
from comfy_gateway.service.people.sign_in_tokens import TokensSignIn
from comfy_gateway.service.people.signed_in import SignedInSessions
from tests.fakes.clock import FakeClock
from tests.fakes.passwords import FakeHashes, FakePasswords
from tests.fakes.sign_outs import FakeSignOuts

KEYS = Keys(bytes(range(32)))
ADDRESS = "192.0.2.1"
ALICE = Standing(UserId(IdKind.NAMED, "alice"), Role.USER, is_proven=True)
OPERATOR = replace(ALICE, role=Role.OPERATOR)
ALICES, ROOTS = token_of("abcd2345", "a" * 43), token_of("rrrr2345", "r" * 43)


class AccountsInMemory:
    """Implements ``core.people.sign_in.AccountFile``."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts

    def version(self) -> object:
        return id(self.accounts)

    def read(self) -> Accounts:
        return self.accounts


class Stand:
    """All that the modes are made of."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.hashes = FakeHashes()
        self.attempts = Attempts(
            digest=lambda *parts: KEYS.proof("test", *parts),
            off_loop=asyncio.to_thread,
            clock=self.clock,
            limits=AttemptLimits(max_failures=3),
        )
        self.sessions = SignedInSessions(
            cookies=SessionCookies(KEYS.session_key(), "test"),
            store=FakeSignOuts(),
            clock=self.clock,
            life_s=1000,
        )
        self.book = AccountBook(AccountsInMemory(Accounts()), self.clock)
        self.know(Account("alice", "abcd2345", self.hashes.make(ALICES)))
        self.tokens = TokensSignIn(
            book=self.book,
            hashes=self.hashes,
            attempts=self.attempts,
            sessions=self.sessions,
            keys=KEYS,
            operators=["olga"],
        )
        self.passwords = FakePasswords(alice="secret:1", olga="secret")
        self.basic = BasicSignIn(
            passwords=self.passwords,
            attempts=self.attempts,
            sessions=self.sessions,
            keys=KEYS,
            operators=["olga"],
        )

    def know(self, *accounts: Account) -> None:
        self.book.accounts = Accounts.of(accounts)

    def value(self, session: SignedIn) -> str:
        return self.sessions.cookie(session, secure=False).partition(";")[0].partition("=")[2]

    def with_session(self, session: SignedIn, *, is_page_load: bool = False) -> Caller:
        return Caller(ADDRESS, sessions=(self.value(session),), is_page_load=is_page_load)


@pytest.fixture
def stand() -> Stand:
    return Stand()


def bearer(token: str, address: str = ADDRESS) -> Caller:
    return Caller(address, authorization=(f"Bearer {token}",))


def basic(name: str, password: str, *, is_page_load: bool = False) -> Caller:
    encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
    return Caller(ADDRESS, authorization=(f"Basic {encoded}",), is_page_load=is_page_load)


def type_of(refusal: Refusal | None) -> str:
    return "" if refusal is None else refusal.type


# tokens -----------------------------------------------------------------------------------------------------


async def test_a_token_proves_its_owner(stand: Stand) -> None:
    found = await stand.tokens.recognise(bearer(ALICES))
    assert found.standing == ALICE
    assert found.refusal is None
    await stand.tokens.recognise(bearer(ALICES))
    assert len(stand.hashes.verified) == 1


@pytest.mark.parametrize(
    "token", ["", "alice", ALICES[:-1] + "b", token_of("zzzz9999", "a" * 43), ALICES + "a"]
)
async def test_anything_else_proves_nobody(stand: Stand, token: str) -> None:
    found = await stand.tokens.recognise(bearer(token))
    assert found.standing.user is None
    assert type_of(found.refusal) == "wrong_credentials"
    assert not found.is_sent_to_page


async def test_a_token_that_names_no_account_costs_as_much_as_one_that_does(stand: Stand) -> None:
    await stand.tokens.recognise(bearer(token_of("zzzz9999", "a" * 43)))
    assert len(stand.hashes.verified) == 1


async def test_a_token_that_cannot_be_one_is_a_guess_too(stand: Stand) -> None:
    for n in range(3):
        assert type_of((await stand.tokens.recognise(bearer(f"guess {n}"))).refusal) == "wrong_credentials"
    assert type_of((await stand.tokens.recognise(bearer("guess"))).refusal) == "too_many_failed_sign_ins"
    assert type_of((await stand.tokens.recognise(bearer(ALICES))).refusal) == "too_many_failed_sign_ins"
    assert (await stand.tokens.recognise(bearer(ALICES, "192.0.2.2"))).standing == ALICE


async def test_who_says_nothing_is_told_how_and_a_page_load_is_sent_to_the_page(stand: Stand) -> None:
    found = await stand.tokens.recognise(Caller(ADDRESS))
    assert found.refusal is not None
    assert found.refusal.status == 401
    assert found.refusal.challenge == 'Bearer realm="ComfyUI"'
    assert found.is_sent_to_page
    assert (await stand.tokens.recognise(basic("alice", "x"))).is_sent_to_page, (
        "another scheme says nothing here"
    )


async def test_the_page_makes_a_session_of_a_token(stand: Stand) -> None:
    session = await stand.tokens.enter(ALICES, ADDRESS)
    assert isinstance(session, SignedIn)
    assert (await stand.tokens.recognise(stand.with_session(session))).standing == ALICE
    refused = await stand.tokens.enter("x", ADDRESS)
    assert isinstance(refused, Refusal)


async def test_a_wrong_bearer_is_not_saved_by_a_session(stand: Stand) -> None:
    session = await stand.tokens.enter(ALICES, ADDRESS)
    assert isinstance(session, SignedIn)
    caller = replace(stand.with_session(session), authorization=("Bearer wrong",))
    assert type_of((await stand.tokens.recognise(caller)).refusal) == "wrong_credentials"


async def test_who_is_removed_or_gets_another_token_is_out_at_once(stand: Stand) -> None:
    session = await stand.tokens.enter(ALICES, ADDRESS)
    assert isinstance(session, SignedIn)
    await stand.tokens.recognise(bearer(ALICES))
    stand.know()
    assert type_of((await stand.tokens.recognise(bearer(ALICES))).refusal) == "wrong_credentials"
    assert (await stand.tokens.recognise(stand.with_session(session))).is_sent_to_page
    stand.know(Account("alice", "bbbb2345", stand.hashes.make(token_of("bbbb2345", "b" * 43))))
    assert (await stand.tokens.recognise(stand.with_session(session))).is_sent_to_page
    assert type_of((await stand.tokens.recognise(bearer(ALICES))).refusal) == "wrong_credentials"


async def test_who_is_removed_while_the_token_is_checked_is_out(stand: Stand) -> None:
    """The check takes a while, and the file may be read meanwhile."""

    class SlowHashes(FakeHashes):
        def verify(self, hashed: str | None, token: str) -> bool:
            stand.know()
            return super().verify(hashed, token)

    stand.tokens._hashes = SlowHashes()
    assert type_of((await stand.tokens.recognise(bearer(ALICES))).refusal) == "wrong_credentials"


async def test_operators_are_those_of_the_file_and_of_the_settings(stand: Stand) -> None:
    stand.know(
        Account("alice", "abcd2345", stand.hashes.make(ALICES), Role.OPERATOR),
        Account("olga", "rrrr2345", stand.hashes.make(ROOTS)),
    )
    assert (await stand.tokens.recognise(bearer(ALICES))).standing == OPERATOR
    assert (await stand.tokens.recognise(bearer(ROOTS))).standing.role is Role.OPERATOR


async def test_a_page_load_prolongs_the_session(stand: Stand) -> None:
    session = await stand.tokens.enter(ALICES, ADDRESS)
    assert isinstance(session, SignedIn)
    await stand.clock.advance(600)
    assert (await stand.tokens.recognise(stand.with_session(session))).remember is None
    found = await stand.tokens.recognise(stand.with_session(session, is_page_load=True))
    assert found.remember is not None
    assert found.remember.session_id == session.session_id
    assert found.session == session


# basic ------------------------------------------------------------------------------------------------------


async def test_a_password_proves_its_owner_under_one_spelling(stand: Stand) -> None:
    assert (await stand.basic.recognise(basic("alice", "secret:1"))).standing == ALICE
    assert (await stand.basic.recognise(basic("ALICE", "secret:1"))).standing == ALICE
    assert stand.passwords.checked == [("alice", "secret:1")]
    assert (await stand.basic.recognise(basic("olga", "secret"))).standing.role is Role.OPERATOR


@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "x"), ("alice", ""), ("", "x"), ("bob", "secret:1"), ("älice", "x"), ("a\nb", "x")],
)
async def test_anything_else_is_asked_again(stand: Stand, name: str, password: str) -> None:
    found = await stand.basic.recognise(basic(name, password))
    assert found.standing.user is None
    assert type_of(found.refusal) == "wrong_credentials"
    assert found.refusal is not None
    assert found.refusal.challenge == 'Basic realm="ComfyUI", charset="UTF-8"'


async def test_no_password_is_asked_for_one(stand: Stand) -> None:
    for caller in (Caller(ADDRESS), bearer("x")):
        found = await stand.basic.recognise(caller)
        assert type_of(found.refusal) == "sign_in_required"
        assert not found.is_sent_to_page


async def test_guessing_passwords_ends(stand: Stand) -> None:
    for n in range(3):
        await stand.basic.recognise(basic("alice", f"guess {n}"))
    assert type_of((await stand.basic.recognise(basic("bob", "x"))).refusal) == "too_many_failed_sign_ins"
    assert type_of((await stand.basic.recognise(basic("", "x"))).refusal) == "too_many_failed_sign_ins"


async def test_a_page_load_gets_a_session_for_sockets_that_carry_no_password(stand: Stand) -> None:
    assert (await stand.basic.recognise(basic("alice", "secret:1"))).remember is None
    found = await stand.basic.recognise(basic("alice", "secret:1", is_page_load=True))
    assert found.remember is not None
    socket = await stand.basic.recognise(stand.with_session(found.remember))
    assert socket.standing == ALICE
    both = replace(basic("alice", "secret:1", is_page_load=True), sessions=(stand.value(found.remember),))
    again = await stand.basic.recognise(both)
    assert again.session == found.remember
    assert again.remember is None
    other = replace(basic("olga", "secret", is_page_load=True), sessions=(stand.value(found.remember),))
    replaced = await stand.basic.recognise(other)
    assert replaced.standing.user == UserId(IdKind.NAMED, "olga")
    assert replaced.remember is not None
    assert replaced.remember.name == "olga"


async def test_another_password_ends_the_session(stand: Stand) -> None:
    found = await stand.basic.recognise(basic("alice", "secret:1", is_page_load=True))
    assert found.remember is not None
    stand.passwords.passwords["alice"] = "another"
    assert (await stand.basic.recognise(stand.with_session(found.remember))).refusal is not None
    assert type_of((await stand.basic.recognise(basic("alice", "secret:1"))).refusal) == "wrong_credentials"
    del stand.passwords.passwords["alice"]
    assert (await stand.basic.recognise(stand.with_session(found.remember))).refusal is not None


async def test_a_directory_that_is_down_is_said(stand: Stand) -> None:
    stand.passwords.is_down = True
    assert type_of((await stand.basic.recognise(basic("alice", "secret:1"))).refusal) == "sign_in_unavailable"


# proxy ------------------------------------------------------------------------------------------------------

PROXY = ProxySignIn(header="X-Forwarded-User", allowed_names="a name", operators=["olga"])


@pytest.mark.parametrize(
    ("caller", "status"),
    [
        (Caller(ADDRESS), 401),
        (Caller(ADDRESS, is_by_proxy=True), 401),
        (Caller(ADDRESS, is_by_proxy=True, named=("", " ")), 401),
        (Caller(ADDRESS, is_by_proxy=True, named=("alice", "olga")), 400),
        (Caller(ADDRESS, is_by_proxy=True, named=("a\nb",)), 400),
        (Caller(ADDRESS, is_by_proxy=True, named=("é",)), 400),
        (Caller(ADDRESS, named=("alice",)), 401),
    ],
)
async def test_nobody_but_the_proxy_names_anybody(caller: Caller, status: int) -> None:
    found = await PROXY.recognise(caller)
    assert found.standing.user is None
    assert found.refusal is not None
    assert found.refusal.status == status
    assert found.refusal.challenge is None


async def test_the_proxy_names_the_user() -> None:
    named = Caller(ADDRESS, is_by_proxy=True, named=(" alice ", "alice"))
    assert (await PROXY.recognise(named)).standing == ALICE
    olga = Caller(ADDRESS, is_by_proxy=True, named=("olga",))
    assert (await PROXY.recognise(olga)).standing.role is Role.OPERATOR
    assert PROXY.session_of(olga).standing.user is None
