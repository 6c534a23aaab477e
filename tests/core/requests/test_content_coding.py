"""Which coding an answer has for whom."""

import pytest

from comfy_gateway.core.requests.content_coding import coding_for, entity_tag, is_known_to


@pytest.mark.parametrize(
    ("accept", "content_type", "size_bytes", "coding"),
    [
        ("gzip, deflate, br, zstd", "application/javascript", 1000, "br"),
        ("gzip, zstd", "text/css; charset=utf-8", 1000, "zstd"),
        ("gzip;q=1.0, br;q=0", "image/svg+xml", 1000, "gzip"),
        ("GZIP ; Q=0.5", "application/json", 1000, "gzip"),
        ("*", "text/html", 1000, "br"),
        ("*;q=0, gzip", "text/html", 1000, "gzip"),
        ("identity", "text/html", 1000, ""),
        ("", "text/html", 1000, ""),
        ("br", "font/woff2", 1000, ""),
        ("br", "image/png", 1000, ""),
        ("br", "text/html", 511, ""),
    ],
)
def test_the_best_coding_that_the_client_takes_and_that_pays(
    accept: str, content_type: str, size_bytes: int, coding: str
) -> None:
    assert coding_for(accept, content_type, size_bytes) == coding


def test_each_coding_has_its_own_strong_tag() -> None:
    tags = {entity_tag("abc", coding) for coding in ("", "br", "gzip")}
    assert tags == {'"abc"', '"abc-br"', '"abc-gzip"'}


@pytest.mark.parametrize(
    ("if_none_match", "is_known"),
    [
        ('"abc-br"', True),
        ('"abc"', True),
        ('"x", W/"abc-gzip"', True),
        ('"abcd"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_a_copy_in_any_coding_is_a_copy(if_none_match: str, is_known: bool) -> None:
    assert is_known_to(if_none_match, "abc") == is_known
