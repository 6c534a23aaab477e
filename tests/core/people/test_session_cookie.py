"""The cookie of people who have signed in."""

from http.cookies import SimpleCookie

import pytest
from itsdangerous import URLSafeSerializer

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.cookie import without_cookies
from comfy_gateway.core.people.session_cookie import (
    NAMES,
    PLAIN_NAME,
    SECURE_NAME,
    SessionCookies,
    SignedIn,
    name_of,
    removal,
)

KEYS = Keys(bytes(range(32)))
COOKIES = SessionCookies(KEYS.session_key(), "tokens")
ALICE = SignedIn("alice", "seal", "id", 2_000)


def value_of(header: str) -> str:
    return header.partition(";")[0].partition("=")[2]


@pytest.mark.parametrize("secure", [False, True])
def test_what_is_written_is_read_and_hidden_from_scripts_and_other_sites(secure: bool) -> None:
    header = COOKIES.write(ALICE, now_s=1_000, secure=secure)
    morsel = SimpleCookie(header)[name_of(secure=secure)]
    assert COOKIES.read(morsel.value) == ALICE
    assert morsel["httponly"]
    assert morsel["samesite"] == "Lax"
    assert morsel["path"] == "/"
    assert morsel["max-age"] == "1000"
    assert bool(morsel["secure"]) is secure
    assert not morsel["domain"]


def test_behind_https_another_host_of_the_domain_cannot_set_it() -> None:
    assert SECURE_NAME.startswith("__Host-")
    assert name_of(secure=True) == SECURE_NAME
    assert name_of(secure=False) == PLAIN_NAME


def test_a_cookie_of_another_secret_or_another_mode_is_none() -> None:
    value = value_of(COOKIES.write(ALICE, now_s=0, secure=False))
    assert SessionCookies(Keys(bytes(32)).session_key(), "tokens").read(value) is None
    assert SessionCookies(KEYS.session_key(), "basic").read(value) is None
    assert SessionCookies(KEYS.cookie_key(), "tokens").read(value) is None


def test_a_cookie_that_was_changed_is_none() -> None:
    value = value_of(COOKIES.write(ALICE, now_s=0, secure=False))
    other = value_of(COOKIES.write(SignedIn("bob", "seal", "id", 2_000), now_s=0, secure=False))
    payload, _, signature = value.rpartition(".")
    assert COOKIES.read(f"{other.rpartition('.')[0]}.{signature}") is None
    assert COOKIES.read(f"{payload}.") is None
    assert COOKIES.read(payload) is None


@pytest.mark.parametrize("value", ["", ".", "a.b", "é.é", "x" * 5000])
def test_rubbish_is_none(value: str) -> None:
    assert COOKIES.read(value) is None


@pytest.mark.parametrize(
    "fields",
    [1, None, "alice", ["alice"], [1, "s", "i", 5], [" a", "s", "i", 5], ["a", "s", "i", "5"], {"a": 1}],
)
def test_our_own_signature_under_another_shape_is_none(fields: object) -> None:
    serializer = COOKIES._serializer
    assert isinstance(serializer, URLSafeSerializer)
    assert COOKIES.read(str(serializer.dumps(fields))) is None


def test_signing_out_removes_it() -> None:
    assert removal(secure=False).startswith(f"{PLAIN_NAME}=; Max-Age=0;")
    assert removal(secure=True).startswith(f"{SECURE_NAME}=; Max-Age=0;")
    assert removal(secure=True).endswith("; Secure")


def test_it_is_cut_out_of_the_header() -> None:
    assert without_cookies(f"a=1; {PLAIN_NAME}=x; b=2; {SECURE_NAME}=y", NAMES) == "a=1; b=2"
    assert without_cookies(f"{PLAIN_NAME}=x", NAMES) == ""


def test_a_seal_follows_mode_name_and_stamp() -> None:
    seals = {
        KEYS.seal(*parts) for parts in [("a", "b", "c"), ("a", "b", "d"), ("a", "bc", ""), ("ab", "", "c")]
    }
    assert len(seals) == 4
    assert KEYS.proof("tokens", "x") != KEYS.seal("tokens", "x", "")
