"""The cookie remembers what we signed, and nothing else."""

import hashlib
from http.cookies import SimpleCookie

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.cookie import (
    COOKIE_NAME,
    IdentityCookie,
    cookie_values,
    without_identity_cookie,
)
from comfy_gateway.core.people.users import IdKind, UserId, is_valid_name

KEYS = Keys(bytes(range(32)))
COOKIE = IdentityCookie(KEYS.cookie_key())
ALICE = UserId(IdKind.NAMED, "alice")

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128).filter(
    is_valid_name
)


def pair(user: UserId, cookie: IdentityCookie = COOKIE) -> str:
    """What the browser sends back."""
    return cookie.set_cookie_header(user, secure=False).partition(";")[0]


@given(NAMES, st.sampled_from([IdKind.NAMED, IdKind.BROWSER]))
def test_every_user_survives_the_way_through_a_browser(name: str, kind: IdKind) -> None:
    user = UserId(kind, name)
    header = COOKIE.set_cookie_header(user, secure=True)
    jar: SimpleCookie = SimpleCookie(header)
    morsel = jar[COOKIE_NAME]
    assert COOKIE.read(f"other=1; {COOKIE_NAME}={morsel.value}; more=2") == user
    assert morsel["httponly"]
    assert morsel["secure"]
    assert morsel["samesite"] == "Lax"
    assert morsel["path"] == "/"
    assert morsel["max-age"] == "31536000"


def test_the_cookie_is_secure_only_where_browsers_come_by_https() -> None:
    assert "Secure" not in COOKIE.set_cookie_header(ALICE, secure=False)


@pytest.mark.parametrize(
    "header", [None, "", "x", "=", f"{COOKIE_NAME}", f"{COOKIE_NAME}=", f"{COOKIE_NAME}=abc.def"]
)
def test_no_cookie_or_a_meaningless_one_is_nobody(header: str | None) -> None:
    assert COOKIE.read(header) is None


@given(
    st.integers(min_value=0),
    st.characters(codec="ascii", exclude_characters=';"', categories=["L", "N", "P"]),
)
def test_a_changed_cookie_is_nobody(position: int, character: str) -> None:
    name, _, value = pair(ALICE).partition("=")
    index = position % len(value)
    # The last character of base64 may hold bits that do not count.
    assume(value[index] != character and index != len(value) - 1)
    assert COOKIE.read(f"{name}={value[:index]}{character}{value[index + 1 :]}") is None


def test_a_cookie_of_another_master_secret_is_nobody() -> None:
    other = IdentityCookie(Keys(bytes(32)).cookie_key())
    assert COOKIE.read(pair(ALICE, other)) is None


@pytest.mark.parametrize(
    "content",
    [
        "client:alice",
        "address:192.0.2.7",
        "alice",
        "emperor:alice",
        "named:",
        "named: x",
        5,
        None,
        ["named:alice"],
    ],
)
def test_content_that_we_never_write_is_nobody_even_when_signed(content: object) -> None:
    signed = URLSafeSerializer(
        KEYS.cookie_key(),
        salt=COOKIE_NAME,
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
    assert COOKIE.read(f"{COOKIE_NAME}={signed.dumps(ALICE.key)}") == ALICE
    assert COOKIE.read(f"{COOKIE_NAME}={signed.dumps(content)}") is None


def test_a_signature_for_another_purpose_is_nobody() -> None:
    other = URLSafeSerializer(
        KEYS.cookie_key(),
        salt="other",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
    assert COOKIE.read(f"{COOKIE_NAME}={other.dumps(ALICE.key)}") is None


def test_a_bad_cookie_in_front_does_not_hide_a_good_one() -> None:
    assert COOKIE.read(f"{COOKIE_NAME}=planted; {pair(ALICE)}") == ALICE


def test_values_of_a_cookie_come_in_order_without_quotes() -> None:
    assert cookie_values('a=1; b="two"; a = 3 ; c', "a") == ("1", "3")
    assert cookie_values('a=1; b="two"', "b") == ("two",)
    assert cookie_values(None, "a") == ()


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (f"a=1; {COOKIE_NAME}=x; b=2", "a=1; b=2"),
        (f"{COOKIE_NAME}=x", ""),
        (f"{COOKIE_NAME} = x;; a=1;", "a=1"),
        (f"x{COOKIE_NAME}=1", f"x{COOKIE_NAME}=1"),
    ],
)
def test_our_cookie_is_taken_out_and_the_others_stay(header: str, rest: str) -> None:
    assert without_identity_cookie(header) == rest
