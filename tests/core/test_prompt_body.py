"""A prompt's body is read as ComfyUI reads it and changed in one place only."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.prompt_body import PromptBody, accepted_prompt_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def without_client_ids(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what ``with_client_id`` sets."""
    rest = {name: value for name, value in document.items() if name != "client_id"}
    if isinstance(rest.get("extra_data", {}), dict):
        extra = {name: value for name, value in rest.get("extra_data", {}).items() if name != "client_id"}
        rest["extra_data"] = extra
    return rest


@given(st.dictionaries(st.text() | st.sampled_from(["client_id", "extra_data", "number"]), JSON, max_size=5))
def test_comfyui_reads_the_same_but_for_the_client_id(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    changed = json.loads(PromptBody.parse(raw).with_client_id("up"))
    assert changed["client_id"] == "up"
    assert repr(without_client_ids(changed)) == repr(without_client_ids(json.loads(raw)))
    if isinstance(changed["extra_data"], dict):
        assert changed["extra_data"]["client_id"] == "up"


@pytest.mark.parametrize(
    "value",
    [
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "1" + "0" * 400,
        "1e400",
        "1.5E+400",
        "1e-400",
        "0.1",
        "1e5",
        "NaN",
        "-Infinity",
        '"\\ud83d"',
        '"\\u0000"',
    ],
)
def test_values_that_are_easily_damaged_arrive_as_comfyui_would_have_read_them(value: str) -> None:
    raw = f'{{"prompt": {{"1": {{"inputs": {{"seed": {value}}}}}}}}}'.encode()
    changed = json.loads(PromptBody.parse(raw).with_client_id("up"))
    assert repr(changed["prompt"]) == repr(json.loads(raw)["prompt"])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"{} x", "no JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b"12345678901234567890", "JSON object"),
        (b'"x"', "JSON object"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
    ],
    ids=["empty", "cut", "trailing", "utf-16", "bom", "list", "null", "number", "text", "bomb", "digits"],
)
def test_what_is_no_prompt_is_refused_in_words_for_the_client(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PromptBody.parse(raw)


@pytest.mark.parametrize(
    ("document", "client_id"),
    [
        ({}, None),
        ({"client_id": "a"}, "a"),
        ({"extra_data": {"client_id": "b"}}, "b"),
        ({"client_id": "a", "extra_data": {"client_id": "b"}}, "a"),
        ({"client_id": None, "extra_data": {"client_id": "b"}}, None),
        ({"client_id": ""}, None),
        ({"client_id": 5}, None),
        ({"extra_data": {}}, None),
        ({"extra_data": []}, None),
        ({"extra_data": None}, None),
    ],
)
def test_the_client_id_is_found_where_comfyui_finds_it(
    document: dict[str, Any], client_id: str | None
) -> None:
    assert PromptBody.parse(json.dumps(document).encode()).client_id == client_id


def test_a_chosen_prompt_id_is_found() -> None:
    assert PromptBody.parse(b'{"prompt_id": "p"}').prompt_id == "p"
    assert PromptBody.parse(b'{"prompt_id": 7}').prompt_id is None
    assert PromptBody.parse(b"{}").prompt_id is None


def test_the_parsed_document_is_not_changed() -> None:
    body = PromptBody.parse(b'{"extra_data": {"x": 1}}')
    body.with_client_id("up")
    assert body.document == {"extra_data": {"x": 1}}


def test_extra_data_that_comfyui_refuses_is_left_to_it() -> None:
    changed = json.loads(PromptBody.parse(b'{"extra_data": [1]}').with_client_id("up"))
    assert changed == {"extra_data": [1], "client_id": "up"}


def test_a_body_that_can_be_read_but_not_written_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for is_plain in (True, False):
        with pytest.raises(ValueError, match="nested too deeply"):
            PromptBody({"a": nested}, is_plain=is_plain).with_client_id("up")


def test_the_body_is_not_shown_in_logs() -> None:
    assert "secret" not in repr(PromptBody.parse(b'{"prompt": "secret"}'))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"prompt_id": "p", "number": 1}', "p"),
        (201, b'{"prompt_id": "p"}', "p"),
        (400, b'{"prompt_id": "p"}', None),
        (199, b'{"prompt_id": "p"}', None),
        (302, b'{"prompt_id": "p"}', None),
        (200, b'{"prompt_id": 5}', None),
        (200, b"{}", None),
        (200, b"[]", None),
        (200, b"<html>", None),
    ],
)
def test_only_an_accepted_prompt_has_an_id(status: int, body: bytes, expected: str | None) -> None:
    assert accepted_prompt_id(status, body) == expected
