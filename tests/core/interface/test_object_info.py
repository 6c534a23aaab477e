"""The forms in which ComfyUI tells its nodes."""

import json
from typing import Any

import pytest

from comfy_gateway.core.interface.object_info import descriptions, node_class


def test_classes_come_one_by_one_with_what_python_alone_reads() -> None:
    body = b' { "A" : {"max": Infinity, "nan": NaN},\r\n\t"B\\u00e4": {"x": [{}]} } '
    (first, second) = descriptions(body)
    assert first[0] == "A"
    assert first[1]["max"] == float("inf")
    assert second == ("B\u00e4", {"x": [{}]})
    assert list(descriptions(b"{}")) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b"{",
        b'{"A": {}',
        b'{"A": {},}',
        b'{"A" {}}',
        b'{"A": {} "B": {}}',
        b'{"A": 1}',
        b"{1: {}}",
        b"\xff",
        b'{"A": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_object_of_descriptions_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        list(descriptions(body))


def of(**specs: Any) -> Any:
    return node_class({"input": {"required": specs}})


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        pytest.param([["a", 1, 2.5, True, None]], {"a", 1, 2.5, None}, id="classic"),
        pytest.param([[]], set(), id="an empty list: nothing is allowed"),
        pytest.param(["COMBO", {"options": ["a"]}], {"a"}, id="newer"),
        pytest.param(["COMBO", {"options": []}], set(), id="newer, empty"),
        pytest.param(["COMBO"], None, id="newer without options"),
        pytest.param(
            ["COMBO", {"options": ["a"], "remote": {"route": "/x"}}], None, id="fetched by the page"
        ),
        pytest.param([[{"content": "a", "image": "b"}]], None, id="objects, which their node judges itself"),
        pytest.param(["STRING", {"options": ["a"]}], None, id="no list"),
        pytest.param([["a"], {"image_upload": True}], None, id="uploads"),
        pytest.param([["a"], {"image_upload": False}], {"a"}, id="a flag that is off"),
        pytest.param([["a"], None], {"a"}, id="options of another kind"),
        pytest.param("STRING", None, id="no spec"),
        pytest.param([], None, id="an empty spec"),
    ],
)
def test_choices_of_one_input(spec: Any, choices: set[Any] | None) -> None:
    assert of(name=spec).choices.get("name") == choices


def test_a_list_that_depends_on_another_choice_is_named_with_a_dot() -> None:
    found = of(
        format=[
            "COMFY_DYNAMICCOMBO_V3",
            {
                "options": [
                    {"key": "png", "inputs": {"required": {"depth": ["COMBO", {"options": ["8", "16"]}]}}},
                    {"key": "exr", "inputs": {"required": {"depth": ["COMBO", {"options": ["32"]}]}}},
                    {"key": "own", "inputs": {"optional": {"from": [[], {"file_upload": True}]}}},
                ]
            },
        ]
    )
    assert found.choices == {"format": {"png", "exr", "own"}, "format.depth": {"8", "16", "32"}}
    assert found.uploads == {"format.from"}


def test_an_input_is_open_when_one_of_its_forms_is() -> None:
    keyed = [
        {"key": "a", "inputs": {"required": {"x": ["COMBO", {"options": ["1"]}]}}},
        {"key": "b", "inputs": {"required": {"x": ["STRING", {}]}}},
        {"key": "c", "inputs": {"required": {"x": ["COMBO", {"options": ["2"]}]}}},
    ]
    assert of(kind=["COMFY_DYNAMICCOMBO_V3", {"options": keyed}]).choices == {"kind": {"a", "b", "c"}}


def test_keys_and_rows_of_another_shape_are_passed_over() -> None:
    found = of(
        kind=["COMFY_DYNAMICCOMBO_V3", {"options": ["a", {"key": "b"}]}],
        none=["COMFY_DYNAMICCOMBO_V3", {"options": {}}],
        mixed=["COMFY_DYNAMICCOMBO_V3", {}],
    )
    assert found.choices == {"kind": {"a", "b"}}


def test_a_row_that_grows_has_every_name() -> None:
    picture = {"required": {"image": [["a.png"], {"image_upload": True}]}}
    found = of(
        images=["COMFY_AUTOGROW_V3", {"template": {"input": picture, "prefix": "image", "min": 1, "max": 3}}],
        named=[
            "COMFY_AUTOGROW_V3",
            {"template": {"input": {"required": {"m": [["x"]]}}, "names": ["a", "b"]}},
        ],
        broken=["COMFY_AUTOGROW_V3", {}],
        empty=["COMFY_AUTOGROW_V3", {"template": {"input": {}, "max": 3}}],
        endless=["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"m": [["x"]]}}, "max": 10**9}}],
    )
    assert found.uploads == {"images.image0", "images.image1", "images.image2"}
    assert found.choices["named.b"] == {"x"}
    assert len([name for name in found.choices if name.startswith("endless")]) == 100


def test_inputs_of_a_slot_are_named_with_a_dot() -> None:
    found = of(
        model=["COMFY_DYNAMICSLOT_V3", {"slotType": "MODEL", "inputs": {"required": {"mode": [["a"]]}}}]
    )
    assert found.choices == {"model.mode": {"a"}}


def test_hidden_inputs_and_other_groups_are_no_inputs_of_a_prompt() -> None:
    found = node_class({"input": {"hidden": {"x": [["a"]]}, "required": None, "optional": ["y"]}})
    assert found.choices == {}
    assert node_class({}).choices == {}
    assert node_class({"input": []}).choices == {}


def test_a_description_that_nests_without_end_is_read_to_some_depth() -> None:
    spec: list[Any] = [["a"]]
    for _ in range(50):
        spec = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": {"required": {"x": spec}}}]}]
    assert len(of(x=spec).choices) == 8


def test_outputs_are_known() -> None:
    assert node_class({"input": {}, "output_node": True}).is_output
    assert not node_class({"input": {}, "output_node": "yes"}).is_output


def test_a_large_answer_is_read_without_keeping_it() -> None:
    described = {"input": {"required": {"x": [["a"]]}}, "description": "long " * 50}
    body = json.dumps({f"Class{number}": described for number in range(1000)}).encode()
    assert sum(1 for _ in descriptions(body)) == 1000
