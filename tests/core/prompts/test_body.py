"""A prompt's body is read as ComfyUI reads it and changed in one place only."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.prompts.body import MAX_ID_CHARACTERS, PromptBody

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def without_client_ids(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what ``addressed`` sets."""
    rest = {name: value for name, value in document.items() if name not in {"client_id", "prompt_id"}}
    if isinstance(rest.get("extra_data", {}), dict):
        extra = {name: value for name, value in rest.get("extra_data", {}).items() if name != "client_id"}
        rest["extra_data"] = extra
    return rest


@given(st.dictionaries(st.text() | st.sampled_from(["client_id", "extra_data", "number"]), JSON, max_size=5))
def test_comfyui_reads_the_same_but_for_the_client_id(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    changed = json.loads(PromptBody.parse(raw).addressed("id", "up").write())
    assert (changed["client_id"], changed["prompt_id"]) == ("up", "id")
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
    changed = json.loads(PromptBody.parse(raw).addressed("id", "up").write())
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


def chosen(value: object) -> str | None:
    return PromptBody.parse(json.dumps({"prompt_id": value}).encode()).chosen_id()


@pytest.mark.parametrize(
    ("value", "prompt_id"),
    [
        ("p", "p"),
        ("Ä b/c", "Ä b/c"),
        ("x" * 200, "x" * 200),
        (7, "7"),
        (1.5, "1.5"),
        (None, None),
        ("", None),
    ],
    ids=repr,
)
def test_a_chosen_id_is_read_as_comfyui_reads_it(value: object, prompt_id: str | None) -> None:
    assert chosen(value) == prompt_id
    assert PromptBody.parse(b"{}").chosen_id() is None


@pytest.mark.parametrize(
    "value", ["x" * (MAX_ID_CHARACTERS + 1), "a\nb", "a\x00", "\ud800", True, ["p"], {"a": 1}], ids=repr
)
def test_what_cannot_be_an_id_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^The prompt_id .*\.$"):
        chosen(value)


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"{}", 7),
        (b'{"front": true}', -7),
        (b'{"front": false}', 7),
        (b'{"front": 1}', -7),
        (b'{"number": 2.5, "front": true}', 2.5),
        (b'{"number": "3"}', 3),
        (b'{"number": -1}', -1),
        (b'{"number": null}', 7),
        (b'{"number": "x"}', 7),
        (b'{"number": NaN}', 7),
        (b'{"number": 1e400}', 7),
        (b'{"number": 1' + b"0" * 400 + b"}", 7),
    ],
)
def test_the_number_shown_is_the_callers_own_or_our_next_one(raw: bytes, number: float) -> None:
    assert PromptBody.parse(raw).number_shown(7) == number


def test_the_parsed_document_is_not_changed() -> None:
    body = PromptBody.parse(b'{"extra_data": {"x": 1}}')
    body.addressed("id", "up").write()
    assert body.document == {"extra_data": {"x": 1}}


def test_extra_data_that_comfyui_refuses_is_left_to_it() -> None:
    changed = json.loads(PromptBody.parse(b'{"extra_data": [1]}').addressed("id", "up").write())
    assert changed == {"extra_data": [1], "client_id": "up", "prompt_id": "id"}


def test_a_body_that_can_be_read_but_not_written_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for is_plain in (True, False):
        with pytest.raises(ValueError, match="nested too deeply"):
            PromptBody({"a": nested}, is_plain=is_plain).addressed("id", "up").write()


def test_the_body_is_not_shown_in_logs() -> None:
    assert "secret" not in repr(PromptBody.parse(b'{"prompt": "secret"}'))
