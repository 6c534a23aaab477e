"""What ``Authorization`` says."""

import base64

import pytest

from comfy_gateway.core.people.credentials import basic_of, bearer_of


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bearer  abc "], "abc"),
        (["Bearer"], ""),
        (["Basic YTpi"], None),
        (["abc"], None),
        (["Bearer abc", "Bearer abc"], ""),
        (["Basic YTpi", "Bearer abc"], ""),
    ],
)
def test_bearer(values: list[str], token: str | None) -> None:
    assert bearer_of(values) == token


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], None),
        (["Bearer abc"], None),
        ([basic("alice:secret")], ("alice", "secret")),
        ([basic("alice:a:b:")], ("alice", "a:b:")),
        ([basic("alice:pässwort")], ("alice", "pässwort")),
        ([basic(":")], ("", "")),
        ([basic("alice")], ("", "")),
        (["Basic !!!"], ("", "")),
        (["Basic " + base64.b64encode(b"\xff\xfe:x").decode()], ("", "")),
        (["Basic"], ("", "")),
        ([basic("alice:secret"), basic("alice:secret")], ("", "")),
    ],
)
def test_basic(values: list[str], found: tuple[str, str] | None) -> None:
    assert basic_of(values) == found
