"""Who counts as whom: the table of docs/identity.md."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from comfy_gateway.core.people.identity import (
    Identity,
    IdentityRules,
    RequestFacts,
    explain_missing,
    identify,
    looks_like_browser,
    wants_html,
)
from comfy_gateway.core.people.users import IdKind, UserId

STRICT = IdentityRules()
OPEN = IdentityRules(is_required=False)
ALL = IdentityRules(cookie="portal", use_client_ip=True)

ALICE = UserId(IdKind.NAMED, "alice")
BOB = UserId(IdKind.NAMED, "bob")
BROWSER = UserId(IdKind.BROWSER, "b1")
CLIENT = UserId(IdKind.CLIENT, "c1")
ADDRESS = UserId(IdKind.ADDRESS, "192.0.2.7")
PAGE_LOAD = RequestFacts(is_browser=True, wants_html=True, spare_name="spare")

EVERYTHING = RequestFacts(
    header=("alice",),
    query=("bob",),
    cookie=("carol",),
    remembered=UserId(IdKind.NAMED, "dora"),
    client_id="c1",
    peer_ip="192.0.2.7",
)


def test_the_order_is_header_query_cookie_own_cookie_client_id_address() -> None:
    facts = EVERYTHING
    seen = []
    for blank in (
        {"header": ()},
        {"query": ()},
        {"cookie": ()},
        {"remembered": None},
        {"client_id": None},
        {"peer_ip": None},
    ):
        seen.append(identify(facts, ALL).user)
        facts = replace(facts, **blank)
    assert seen == [ALICE, BOB, UserId(IdKind.NAMED, "carol"), UserId(IdKind.NAMED, "dora"), CLIENT, ADDRESS]
    assert identify(facts, ALL) == Identity()


@pytest.mark.parametrize(
    ("facts", "rules"),
    [
        (RequestFacts(cookie=("carol",)), STRICT),
        (RequestFacts(client_id="c1"), replace(STRICT, use_client_id=False)),
        (RequestFacts(peer_ip="192.0.2.7"), STRICT),
    ],
    ids=["cookie", "client_id", "address"],
)
def test_a_source_that_is_off_does_not_count(facts: RequestFacts, rules: IdentityRules) -> None:
    assert identify(facts, rules) == Identity()


@pytest.mark.parametrize("name", ["Zo\u00eb", "x" * 129, "a\tb", "a\x00b", "\udce9"])
@pytest.mark.parametrize(
    ("source", "named"),
    [
        (lambda name: RequestFacts(header=(name,), client_id="c1", remembered=BOB), "X-Comfy-User"),
        (lambda name: RequestFacts(query=(name,), client_id="c1", remembered=BOB), "user_id"),
        (lambda name: RequestFacts(cookie=(name,), client_id="c1", remembered=BOB), "portal"),
    ],
    ids=["header", "query", "cookie"],
)
@pytest.mark.parametrize("is_required", [True, False])
def test_a_name_that_cannot_be_used_is_a_problem_and_no_weaker_source_is_asked(
    source: Callable[[str], RequestFacts], named: str, name: str, is_required: bool
) -> None:
    found = identify(source(name), replace(ALL, is_required=is_required))
    assert found.user is None
    assert found.problem is not None
    assert named in found.problem
    assert "1 to 128 printable ASCII characters" in found.problem
    assert name not in found.problem


def test_two_different_names_at_one_place_are_a_problem_and_equal_ones_are_not() -> None:
    assert "more than once" in (identify(RequestFacts(header=("alice", "bob")), STRICT).problem or "")
    assert identify(RequestFacts(header=("alice", " alice ")), STRICT).user == ALICE


def test_a_blank_name_counts_as_not_given() -> None:
    assert identify(RequestFacts(header=("", "  "), query=("bob",)), STRICT).user == BOB


@pytest.mark.parametrize("facts", [RequestFacts(header=("alice",)), RequestFacts(query=("alice",))])
def test_what_names_a_browser_is_remembered_once(facts: RequestFacts) -> None:
    assert identify(replace(facts, is_browser=True), STRICT).remember == ALICE
    assert identify(replace(facts, is_browser=True, remembered=ALICE), STRICT).remember is None
    assert identify(facts, STRICT).remember is None


def test_a_cookie_of_another_name_is_replaced_even_for_a_script() -> None:
    assert identify(RequestFacts(header=("alice",), remembered=BOB), STRICT) == Identity(
        ALICE, remember=ALICE
    )


def test_the_clients_own_cookie_is_not_copied_into_ours() -> None:
    assert identify(replace(PAGE_LOAD, cookie=("alice",)), ALL) == Identity(ALICE)


def test_a_remembered_name_satisfies_the_need_for_one() -> None:
    assert identify(RequestFacts(remembered=ALICE, is_browser=True), STRICT) == Identity(ALICE)


def test_an_anonymous_browser_counts_only_while_names_are_not_required() -> None:
    assert identify(RequestFacts(remembered=BROWSER), OPEN) == Identity(BROWSER)
    assert identify(RequestFacts(remembered=BROWSER), STRICT) == Identity()


def test_an_unknown_browser_gets_a_name_when_it_loads_a_page() -> None:
    spare = UserId(IdKind.BROWSER, "spare")
    assert identify(PAGE_LOAD, OPEN) == Identity(spare, remember=spare)
    assert identify(replace(PAGE_LOAD, peer_ip="192.0.2.7"), replace(OPEN, use_client_ip=True)).user == spare


@pytest.mark.parametrize(
    ("facts", "rules"),
    [
        (PAGE_LOAD, STRICT),
        (replace(PAGE_LOAD, wants_html=False), OPEN),
        (replace(PAGE_LOAD, is_browser=False), OPEN),
        (replace(PAGE_LOAD, spare_name=""), OPEN),
    ],
    ids=["names required", "no page load", "no browser", "no name at hand"],
)
def test_nobody_else_gets_a_name(facts: RequestFacts, rules: IdentityRules) -> None:
    assert identify(facts, rules) == Identity()


@pytest.mark.parametrize(
    ("facts", "rules"),
    [
        (RequestFacts(header=("alice",), client_id="c1"), STRICT),
        (RequestFacts(remembered=ALICE, client_id="c1"), STRICT),
    ],
    ids=["named", "remembered"],
)
def test_the_client_id_of_a_known_user_is_joined_to_them(facts: RequestFacts, rules: IdentityRules) -> None:
    assert identify(facts, rules).claim == "c1"
    assert identify(replace(facts, client_id_owner=BOB), rules).claim is None
    assert identify(facts, replace(rules, use_client_id=False)).claim is None
    assert identify(replace(facts, client_id="x" * 129), rules).claim is None


def test_a_request_with_nothing_but_a_joined_client_id_belongs_to_that_browser() -> None:
    assert identify(RequestFacts(client_id="c1", client_id_owner=BROWSER), OPEN) == Identity(BROWSER)


def test_a_client_id_alone_is_never_somebody_with_a_name() -> None:
    facts = RequestFacts(client_id="c1", client_id_owner=ALICE)
    for rules in (OPEN, STRICT):
        assert identify(facts, rules) == Identity(UserId(IdKind.CLIENT, "c1"))


def test_a_client_id_alone_is_a_user_of_its_own_kind_and_claims_nothing() -> None:
    assert identify(RequestFacts(client_id="alice"), STRICT) == Identity(UserId(IdKind.CLIENT, "alice"))


def test_a_client_id_that_cannot_be_a_name_is_passed_over() -> None:
    assert identify(RequestFacts(client_id="\u00e9"), STRICT) == Identity()


@pytest.mark.parametrize(
    ("peer_ip", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_one_address_is_one_user_however_it_is_written(peer_ip: str, expected: str) -> None:
    assert identify(RequestFacts(peer_ip=peer_ip), ALL).user == UserId(IdKind.ADDRESS, expected)


@pytest.mark.parametrize("peer_ip", [None, "", "unix"])
def test_what_is_no_address_is_nobody(peer_ip: str | None) -> None:
    assert identify(RequestFacts(peer_ip=peer_ip), ALL) == Identity()


def test_the_missing_id_is_explained_by_every_way_to_give_one() -> None:
    assert "X-Comfy-User" in explain_missing(STRICT)
    assert "user_id" in explain_missing(STRICT)
    assert "cookie" not in explain_missing(STRICT)
    assert "portal" in explain_missing(ALL)


@pytest.mark.parametrize(
    ("user_agent", "accept", "sec_fetch_mode", "expected"),
    [
        ("Mozilla/5.0 (X11)", "*/*", None, True),
        (None, "text/html,*/*", None, True),
        (None, None, "cors", True),
        ("curl/8", "*/*", None, False),
        (None, None, None, False),
    ],
)
def test_browsers_are_recognised(
    user_agent: str | None, accept: str | None, sec_fetch_mode: str | None, expected: bool
) -> None:
    assert looks_like_browser(user_agent, accept, sec_fetch_mode) is expected


def test_a_page_load_asks_for_html() -> None:
    assert wants_html("Text/HTML,application/xhtml+xml")
    assert not wants_html("*/*")
    assert not wants_html(None)
