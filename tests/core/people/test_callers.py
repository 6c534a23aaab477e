"""Whose word about the caller counts."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.people.callers import (
    Caller,
    TrustedProxies,
    find_caller,
    is_forwarding,
    without_query_key,
)

TRUSTED = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"])
PROXY, PROXY_2, CLIENT = "10.0.0.1", "10.9.9.9", "203.0.113.7"

type Pairs = Sequence[tuple[str, str]]


def caller(*pairs: tuple[str, str], peer: str = PROXY, host: str = "ours:8000", tls: bool = False) -> Caller:
    def values(name: str) -> list[str]:
        return [value for found, value in pairs if found.lower() == name.lower()]

    return find_caller(values, peer=peer, host=host, is_tls=tls, is_public_https=False, trusted=TRUSTED)


XFF = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("pairs", "address"),
    [
        ([(XFF, CLIENT)], CLIENT),
        ([(XFF, f"1.2.3.4, {CLIENT}")], CLIENT),
        ([(XFF, f"127.0.0.1, {CLIENT}, {PROXY_2}")], CLIENT),
        ([(XFF, "1.2.3.4"), (XFF, f"{CLIENT},{PROXY_2}")], CLIENT),
        ([(XFF, f"{CLIENT}:49152")], CLIENT),
        ([(XFF, "[2001:db9::7]:443")], "2001:db9::7"),
        ([(XFF, "2001:db9::7")], "2001:db9::7"),
        ([(XFF, f"::ffff:{CLIENT}")], CLIENT),
        ([(XFF, f"{CLIENT}, unknown")], PROXY),
        ([(XFF, f"{CLIENT}, unknown, {PROXY_2}")], PROXY_2),
        ([(XFF, f"{PROXY_2}, {PROXY}")], PROXY_2),
        ([(XFF, "")], PROXY),
        ([], PROXY),
        ([("Forwarded", f'for=1.2.3.4, for="{CLIENT}:80";proto=https;by=10.0.0.1')], CLIENT),
        ([("forwarded", 'For="[2001:db9::7]:4711"')], "2001:db9::7"),
        ([("Forwarded", "for=_hidden")], PROXY),
        ([("X-Real-IP", CLIENT)], CLIENT),
        ([("X-Real-IP", "1.2.3.4"), (XFF, CLIENT)], CLIENT),
        ([("Forwarded", "for=1.2.3.4"), (XFF, CLIENT)], CLIENT),
    ],
)
def test_behind_trusted_proxies_the_caller_is_the_right_most_stranger(pairs: Pairs, address: str) -> None:
    found = caller(*pairs)
    assert found.address == address
    assert found.is_by_proxy
    assert not found.is_local


@given(st.lists(st.sampled_from(["1.2.3.4", PROXY, PROXY_2, "junk", "::1", "127.0.0.1"]), max_size=5))
def test_what_a_caller_writes_to_the_left_changes_nothing(own_words: list[str]) -> None:
    assert caller((XFF, ", ".join([*own_words, CLIENT, PROXY_2]))).address == CLIENT


@pytest.mark.parametrize(
    "pairs",
    [
        [(XFF, "127.0.0.1")],
        [("Forwarded", "for=127.0.0.1;proto=https;host=evil.example")],
        [("X-Real-IP", "127.0.0.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example")],
    ],
)
def test_a_strangers_word_about_itself_counts_for_nothing(pairs: Pairs) -> None:
    assert caller(*pairs, peer=CLIENT) == Caller(address=CLIENT, host="ours:8000")


@pytest.mark.parametrize(
    ("pairs", "is_https", "host"),
    [
        ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "comfy.example")], True, "comfy.example"),
        ([("X-Forwarded-Proto", "https, HTTPS"), ("X-Forwarded-Host", "a, b")], True, "b"),
        ([("X-Forwarded-Proto", "http")], False, "ours:8000"),
        ([("Forwarded", 'for=1.2.3.4;proto=https;host="comfy.example:8443"')], True, "comfy.example:8443"),
        ([], False, "ours:8000"),
    ],
)
def test_a_trusted_proxy_says_scheme_and_host(pairs: Pairs, is_https: bool, host: str) -> None:
    found = caller(*pairs)
    assert (found.is_https, found.host) == (is_https, host)


def test_without_a_proxys_word_tls_or_the_public_address_says_https() -> None:
    assert caller(tls=True).is_https
    assert caller(tls=True, peer=CLIENT).is_https
    assert not caller(peer=CLIENT).is_https
    public = find_caller(
        lambda _name: (), peer=CLIENT, host="", is_tls=False, is_public_https=True, trusted=TRUSTED
    )
    assert public.is_https


@pytest.mark.parametrize(
    ("peer", "host", "pairs", "is_local"),
    [
        ("127.0.0.1", "localhost:8000", [], True),
        ("127.8.8.8", "127.0.0.1", [], True),
        ("::1", "[::1]:8000", [], True),
        ("::ffff:127.0.0.1", "localhost", [], True),
        ("127.0.0.1", "comfy.example.com", [], False),
        ("127.0.0.1", "gpu-box:8000", [], False),
        ("127.0.0.1", "localhost", [(XFF, CLIENT)], False),
        ("127.0.0.1", "localhost", [("Via", "1.1 vegur")], False),
        ("127.0.0.1", "localhost", [("Forwarded", "for=::1")], False),
        ("192.168.1.9", "localhost", [], False),
        ("", "localhost", [], False),
    ],
)
def test_local_is_who_asks_this_machine_from_this_machine_past_nobody(
    peer: str, host: str, pairs: Pairs, is_local: bool
) -> None:
    assert caller(*pairs, peer=peer, host=host).is_local is is_local


def test_networks_hold_addresses_in_any_spelling() -> None:
    assert "::ffff:10.0.0.1" in TRUSTED
    assert "fe80::1%eth0" not in TRUSTED
    assert "2001:db8::5" in TRUSTED
    assert "192.0.2.1" in TRUSTED
    assert "192.0.2.2" not in TRUSTED
    assert "" not in TRUSTED
    assert "nonsense" not in TRUSTED
    assert None not in TRUSTED
    assert PROXY not in TrustedProxies()


@pytest.mark.parametrize(
    "name", ["x-forwarded-for", "x-forwarded-access-token", "forwarded", "x-real-ip", "remote-user"]
)
def test_headers_of_proxies_are_known(name: str) -> None:
    assert is_forwarding(name)
    assert not is_forwarding("accept")


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/a", "/a"),
        ("/a?b=1", "/a?b=1"),
        ("/a?user_id=x", "/a"),
        ("/a?b=%2F&user_id=x&c", "/a?b=%2F&c"),
        ("/a?user%5Fid=x&user_id&b", "/a?b"),
        ("/a?xuser_id=1", "/a?xuser_id=1"),
    ],
)
def test_a_query_key_is_cut_out_and_nothing_else(path: str, left: str) -> None:
    assert without_query_key(path, "user_id") == left
