import pytest

from comfy_gateway.core.requests.refusals import MALFORMED, Refusal
from comfy_gateway.core.requests.request_head import (
    HEAD_TOO_LARGE,
    LENGTH_TOO_LARGE,
    MAX_FIELDS,
    MAX_LINE_BYTES,
    refuse_head,
)

LINE = b"GET /queue?a=%20b HTTP/1.1\r\n"
HOST = b"Host: 127.0.0.1:8000\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"X-Comfy-User: alice\r\n",
        b"X-Empty:\r\n",
        b"Cookie: a=b; c=\xc3\xa9\r\n",
        b"Content-Length: 123456789012345\r\n",
        b"X: tab\tinside\r\n",
        b"X: " + b"a" * 7900 + b"\r\n",
        b"X: 1\r\n" * (MAX_FIELDS - 1),
    ],
)
def test_a_plain_head_is_let_in(fields: bytes) -> None:
    assert refuse_head(LINE + HOST + fields + b"\r\n") is None


@pytest.mark.parametrize(
    ("head", "refusal"),
    [
        (LINE + b"X: a\r\n b\r\n\r\n", MALFORMED),
        (LINE + b"X: a\r\n\tTransfer-Encoding: chunked\r\n\r\n", MALFORMED),
        (LINE + b"X: a\nY: b\r\n\r\n", MALFORMED),
        (LINE + HOST + b"\n", MALFORMED),
        (b"GET / HTTP/1.1\n\n", MALFORMED),
        (LINE + b"X: a\rY: b\r\n\r\n", MALFORMED),
        (LINE + b"X: a\x00b\r\n\r\n", MALFORMED),
        (LINE + b"X : a\r\n\r\n", MALFORMED),
        (LINE + b": a\r\n\r\n", MALFORMED),
        (LINE + b"no colon\r\n\r\n", MALFORMED),
        (LINE + b"X\xff: a\r\n\r\n", MALFORMED),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", MALFORMED),
        (b"GET /a b HTTP/1.1\r\n\r\n", MALFORMED),
        (b"GET  / HTTP/1.1\r\n\r\n", MALFORMED),
        (b"GET /\r\n\r\n", MALFORMED),
        (b"head / HTTP/1.1\r\n\r\n", MALFORMED),
        (b"\x16\x03\x01\r\n\r\n", MALFORMED),
        (LINE + b"content-LENGTH: 1234567890123456\r\n\r\n", LENGTH_TOO_LARGE),
        (LINE + b"X: " + b"a" * MAX_LINE_BYTES + b"\r\n\r\n", HEAD_TOO_LARGE),
        (b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1\r\n\r\n", HEAD_TOO_LARGE),
        (LINE + b"X: 1\r\n" * (MAX_FIELDS + 1) + b"\r\n", HEAD_TOO_LARGE),
        (LINE + (b"X: " + b"a" * 7000 + b"\r\n") * 10 + b"\r\n", HEAD_TOO_LARGE),
    ],
)
def test_a_head_that_two_servers_could_read_in_two_ways_is_refused(head: bytes, refusal: Refusal) -> None:
    assert refuse_head(head) is refusal
