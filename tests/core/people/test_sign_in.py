"""What people are told who are not signed in."""

from comfy_gateway.core.people.sign_in import (
    BASIC,
    BEARER,
    not_signed_in,
    too_many_failures,
    wrong_credentials,
)
from comfy_gateway.core.requests.refusals import decode, encode, headers_of


def test_scripts_are_told_how_to_sign_in() -> None:
    assert headers_of(not_signed_in(BEARER))["WWW-Authenticate"] == 'Bearer realm="ComfyUI"'
    assert headers_of(decode(encode(wrong_credentials(BASIC))))["WWW-Authenticate"] == BASIC
    assert "WWW-Authenticate" not in headers_of(not_signed_in(None, "Come through the proxy."))


def test_who_guesses_is_told_when_to_come_back() -> None:
    refusal = too_many_failures(42)
    assert refusal.status == 429
    assert headers_of(refusal)["Retry-After"] == "42"
