"""API keys leave nothing behind."""

from typing import Any

import orjson
import pytest

from comfy_gateway.core.prompts.secrets_in_prompts import (
    COMFYUI_KEYS,
    document_without_secrets,
    entry_without_secrets,
    item_without_secrets,
    may_hold_secrets,
    without_secrets,
)

SECRET = "sk-1234"

NAMES = [
    *sorted(COMFYUI_KEYS),
    *("api_key", "apiKey", "API-Key", "openai_key", "OPENAI_API_KEY", "x-api-key", "key"),
    *(
        "token",
        "hf_token",
        "authToken",
        "access_token",
        "secret",
        "client_secret",
        "password",
        "Passwd",
        "db.pwd",
    ),
    *("Authorization", "auth", "cookie", "credentials", "private_key", "Bearer", 'api_key "of mine"'),
    'api_key "of mine"',
]


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_a_secret_is_removed_wherever_it_stands(name: str) -> None:
    given = {"client_id": "tab", name: SECRET, "node": {"1": [{name: SECRET, "steps": 3}]}}
    assert without_secrets(given) == {"client_id": "tab", "node": {"1": [{"steps": 3}]}}
    assert may_hold_secrets(orjson.dumps(given))
    assert given[name] == SECRET, "the given one goes up and stays whole"


@pytest.mark.parametrize(
    "name", [*sorted(COMFYUI_KEYS), "apiKey", "clientSecret", "password", "Authorization"]
)
def test_a_workflow_keeps_no_certain_secret(name: str) -> None:
    given = {"extra_pnginfo": {"workflow": {"nodes": [{"properties": {name: SECRET}}]}}}
    assert without_secrets(given) == {"extra_pnginfo": {"workflow": {"nodes": [{"properties": {}}]}}}


def test_secrets_in_an_object_or_a_list_are_removed_with_it() -> None:
    given = {"credentials": {"user": "a", "value": SECRET}, "passwords": [SECRET], "auth": {"kind": "none"}}
    assert without_secrets(given) == {"auth": {"kind": "none"}}


UNTOUCHED: list[Any] = [
    {},
    None,
    "text",
    [1],
    {"client_id": "tab", "extra_pnginfo": {"workflow": {"nodes": [], "links": [[1, 2]]}}},
    {
        "extra_pnginfo": {
            "workflow": {"nodes": [{"properties": {"key": "C major", "token": "sks", "Node name": "a"}}]}
        }
    },
    {"max_tokens": 512, "api_key": "", "password": None, "use_auth": True, "token": 5, "secret": {}},
    {"keyframes": "1,2", "monkey": "x", "tokenizer": "t5", "author": "me", "passes": "3", "create_time": 17},
]


@pytest.mark.parametrize("given", UNTOUCHED, ids=str)
def test_everything_else_is_the_very_same_object(given: Any) -> None:
    assert without_secrets(given) is given


def test_what_is_nested_too_deeply_to_look_into_is_left_out() -> None:
    deep: dict[str, Any] = {"api_key": SECRET}
    for _ in range(100_000):
        deep = {"a": deep}
    assert without_secrets(deep) == {}


def test_a_body_of_a_prompt_is_cleaned_in_its_extra_data_alone() -> None:
    prompt = {"1": {"inputs": {"password": "part of the picture"}}}
    given = {"prompt": prompt, "extra_data": {"api_key_comfy_org": SECRET, "client_id": "tab"}}
    assert document_without_secrets(given) == {"prompt": prompt, "extra_data": {"client_id": "tab"}}
    for clean in ({"prompt": prompt}, {"prompt": prompt, "extra_data": {"client_id": "tab"}}):
        assert document_without_secrets(clean) is clean


def test_items_of_the_queue_and_entries_of_the_history_are_cleaned() -> None:
    item = [1, "p1", {}, {"api_key_comfy_org": SECRET}, ["9"]]
    clean = [1, "p1", {}, {}, ["9"]]
    assert item_without_secrets(item) == clean
    assert item_without_secrets([*clean, {"api_key_comfy_org": SECRET}]) == clean, "newer servers"
    assert item_without_secrets(clean) is clean
    entry = {"prompt": item, "outputs": {"9": {}}}
    assert entry_without_secrets(entry) == {"prompt": clean, "outputs": {"9": {}}}
    done = {"prompt": clean, "outputs": {}}
    assert entry_without_secrets(done) is done


@pytest.mark.parametrize("item", [None, [], [1, "p1", {}], "text"], ids=str)
def test_items_of_another_shape_are_left_alone(item: Any) -> None:
    assert item_without_secrets(item) is item
    entry = {"prompt": item}
    assert entry_without_secrets(entry) is entry


def test_a_body_without_any_such_name_need_not_be_looked_into() -> None:
    words = ["a key to the secret password", "token:", "auth"]
    given = {"prompt": {"1": {"class_type": "TokenEncode", "inputs": {"text": words}}}, "client_id": "tab"}
    assert not may_hold_secrets(orjson.dumps(given))
    assert may_hold_secrets(orjson.dumps(given | {"monkeys": 3})), "to be looked into, and found harmless"
