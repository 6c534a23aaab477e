"""Addresses of ComfyUI servers."""

import pytest

from comfy_gateway.core.requests.upstream import Backend, Source, Upstream, front_door_headers


@pytest.mark.parametrize(
    ("url", "expected", "authority", "full"),
    [
        (
            "http://localhost:3000/",
            Upstream("http", "localhost", 3000),
            "localhost:3000",
            "http://localhost:3000/x",
        ),
        ("https://a.b", Upstream("https", "a.b", 443), "a.b", "https://a.b/x"),
        ("http://a.b", Upstream("http", "a.b", 80), "a.b", "http://a.b/x"),
        ("https://a.b:80/", Upstream("https", "a.b", 80), "a.b:80", "https://a.b:80/x"),
        ("http://a.b/comfy/ui/", Upstream("http", "a.b", 80, "/comfy/ui"), "a.b", "http://a.b/comfy/ui/x"),
        ("http://a.b/c%2Fd", Upstream("http", "a.b", 80, "/c%2Fd"), "a.b", "http://a.b/c%2Fd/x"),
        (" http://A.B \n", Upstream("http", "a.b", 80), "a.b", "http://a.b/x"),
        ("http://[::1]:8188", Upstream("http", "::1", 8188), "[::1]:8188", "http://[::1]:8188/x"),
        ("https://[fe80::1]/", Upstream("https", "fe80::1", 443), "[fe80::1]", "https://[fe80::1]/x"),
    ],
)
def test_an_address_is_read_and_written(url: str, expected: Upstream, authority: str, full: str) -> None:
    upstream = Upstream.parse(url)
    assert upstream == expected
    assert upstream.authority == authority
    assert upstream.origin == f"{upstream.scheme}://{authority}"
    assert upstream.url("/x") == full
    assert Upstream.parse(upstream.url("/")) == upstream


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "http:// or https://"),
        ("a.b:3000", "http:// or https://"),
        ("ftp://a.b", "http:// or https://"),
        ("http://", "no host name"),
        ("http:///path", "no host name"),
        ("http://me@a.b", "user name or password"),
        ("http://:secret@a.b", "user name or password"),
        ("http://a.b/?x=1", "query or a fragment"),
        ("http://a.b/#x", "query or a fragment"),
        ("http://a.b:99999", "out of range"),
        ("http://a.b:port", "[Pp]ort"),
        ("http://[::1", "IPv6"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Upstream.parse(url)


def test_paths_keep_their_encoding_and_query() -> None:
    upstream = Upstream.parse("http://a.b/p")
    assert upstream.url("/userdata/a%2Fb.json?x=%20&y") == "http://a.b/p/userdata/a%2Fb.json?x=%20&y"


def test_a_backends_token_is_not_shown() -> None:
    backend = Backend("duty-0", Source.PRIVATE, Upstream("http", "a.b", 80), "very secret")
    assert "very secret" not in repr(backend)


def test_the_front_doors_token_is_sent_where_there_is_one() -> None:
    assert front_door_headers("secret") == {"X-Comfy-Gateway-Token": "secret"}
    assert front_door_headers(None) == {}
