"""Which Host and Origin are ours."""

import pytest

from comfy_gateway.core.people.hosts import (
    AllowedHosts,
    OriginVerdict,
    check_origin,
    explain_foreign,
    is_change_from_elsewhere,
    is_loopback,
)
from comfy_gateway.core.requests.upstream import Upstream

PUBLIC = AllowedHosts.of(
    [Upstream.parse("https://comfy.example.com"), Upstream.parse("http://Other.Example:8080")]
)
OURS, NONE, FOREIGN = OriginVerdict.OURS, OriginVerdict.NONE, OriginVerdict.FOREIGN


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("localhost:8000", None, NONE),
        ("localhost:8000", "http://localhost:8000", OURS),
        ("LOCALHOST.:8000", "http://localhost:8000", OURS),
        ("localhost", "http://localhost:80", OURS),
        ("localhost", "https://localhost", OURS),
        ("comfy.localhost:8000", "http://comfy.localhost:8000", OURS),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", OURS),
        ("[::1]:8000", "http://[::1]:8000", OURS),
        ("[0:0:0:0:0:0:0:1]:8000", "http://[::1]:8000", OURS),
        ("192.168.1.5:8000", "http://192.168.1.5:8000", OURS),
        ("gpu-box:8000", "http://gpu-box:8000", OURS),
        ("gpu-box.local", "http://gpu-box.local", OURS),
        ("gateway.svc.cluster.local", None, NONE),
        ("comfy.example.com", "https://comfy.example.com", OURS),
        ("COMFY.example.com:443", "https://comfy.example.com", OURS),
        ("comfy.example.com:8000", "http://comfy.example.com:8000", OURS),
        ("comfy.example.com", None, NONE),
        ("127.0.0.1:8000", "https://comfy.example.com", OURS),
        ("127.0.0.1:8000", "http://other.example:8080", OURS),
        ("127.0.0.1:8000", "http://other.example", FOREIGN),
        ("localhost:8000", "http://localhost:3000", FOREIGN),
        ("localhost:8000", "http://127.0.0.1:8000", FOREIGN),
        ("localhost:8000", "http://evil.example", FOREIGN),
        ("localhost:8000", "null", FOREIGN),
        ("localhost:8000", "", FOREIGN),
        ("localhost:8000", "file://", FOREIGN),
        ("localhost:8000", "chrome-extension://abc", FOREIGN),
        ("localhost:8000", "http://localhost:8000/x", FOREIGN),
        ("localhost:8000", "http://user@localhost:8000", FOREIGN),
        ("localhost:8000", "http://localhost:99999", FOREIGN),
        ("localhost:8000", "http://[::1", FOREIGN),
        ("localhost:8000", "http://[1::2::3]", FOREIGN),
        ("evil.example:8000", None, FOREIGN),
        ("evil.example:8000", "http://evil.example:8000", FOREIGN),
        ("evilcomfy.example.com", None, FOREIGN),
        ("comfy.example.com.evil.example", None, FOREIGN),
        ("localhost.evil.example", None, FOREIGN),
        ("127.0.0.1.evil.example", None, FOREIGN),
        ("127.1.evil", None, FOREIGN),
        ("a b", None, FOREIGN),
        ("localhost:x", None, FOREIGN),
        ("localhost:99999", None, FOREIGN),
        ("[x]", None, FOREIGN),
        ("[1::2::3]", None, FOREIGN),
        ("..", None, FOREIGN),
        ("", None, NONE),
        ("", "http://localhost", FOREIGN),
    ],
)
def test_the_verdict_on_host_and_origin(host: str, origin: str | None, expected: OriginVerdict) -> None:
    assert check_origin(host, origin, PUBLIC) is expected


def test_a_public_host_is_foreign_unless_it_is_set() -> None:
    assert check_origin("comfy.example.com", None, AllowedHosts()) is FOREIGN


@pytest.mark.parametrize(
    ("host", "origin", "words"),
    [
        ("evil.example", None, "GATEWAY_PUBLIC_URL"),
        ("not a host", None, "GATEWAY_PUBLIC_URL"),
        ("localhost", "http://evil.example", "another site"),
    ],
)
def test_the_refusal_says_which_of_the_two_is_wrong_and_repeats_nothing(
    host: str, origin: str | None, words: str
) -> None:
    text = explain_foreign(host, origin, PUBLIC)
    assert words in text
    assert "evil" not in text


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost:1", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("192.168.1.5", False),
        ("gpu-box", False),
        ("notlocalhost", False),
        ("a b", False),
    ],
)
def test_loopback_names(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("method", "origin", "site", "expected"),
    [
        ("POST", None, "cross-site", True),
        ("PUT", None, " Same-Site", True),
        ("POST", None, "same-origin", False),
        ("POST", None, "none", False),
        ("POST", None, None, False),
        ("POST", "http://localhost", "cross-site", False),
        ("GET", None, "cross-site", False),
        ("HEAD", None, "cross-site", False),
    ],
)
def test_a_browser_may_say_that_another_site_wants_to_change_something(
    method: str, origin: str | None, site: str | None, expected: bool
) -> None:
    assert is_change_from_elsewhere(method, origin, site) is expected
