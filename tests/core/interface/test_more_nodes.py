"""What a page is offered besides what its own server can run."""

from copy import deepcopy
from typing import Any

from comfy_gateway.core.interface.more_nodes import with_more
from comfy_gateway.core.prompts.catalogue import Catalogue


def node(**groups: Any) -> dict[str, Any]:
    return {"input": {"required": {}, **groups}, "output_node": False, "description": "words"}


POD = {
    "Loader": node(required={"name": [["small", "b"], {"tooltip": "x"}], "steps": ["INT", {}]}),
    "Newer": node(optional={"name": ["COMBO", {"multiselect": False, "options": ["small"]}]}),
    "LoadImage": node(required={"image": [["own.png"], {"image_upload": True}]}),
    "Open": node(required={"name": ["STRING"]}),
    "Own": node(required={"name": [["x"]]}),
}
DUTY = {
    "Loader": node(required={"name": [["large", "b", "a"]], "steps": ["INT", {}]}),
    "Newer": node(optional={"name": ["COMBO", {"options": ["large", "small"]}]}),
    "LoadImage": node(required={"image": [["duty.png"], {"image_upload": True}]}),
    "Open": node(required={"name": [["a"]]}),
    "Painter": node(),
}


def test_classes_and_values_of_the_other_are_added_behind_the_own() -> None:
    before = deepcopy(POD)
    merged = with_more(POD, DUTY)
    assert list(merged) == [*POD, "Painter"]
    assert merged["Loader"]["input"]["required"]["name"] == [["small", "b", "a", "large"], {"tooltip": "x"}]
    assert merged["Newer"]["input"]["optional"]["name"] == [
        "COMBO",
        {"multiselect": False, "options": ["small", "large"]},
    ]
    assert merged["Loader"]["description"] == "words"
    assert merged["Painter"] == DUTY["Painter"]
    for unchanged in ("LoadImage", "Open", "Own"):
        assert merged[unchanged] is POD[unchanged]
    assert before == POD


def test_a_page_that_was_offered_it_all_misses_nothing_of_either() -> None:
    merged = Catalogue.parse(with_more(POD, DUTY))
    assert merged.differences(Catalogue.parse(DUTY)) == []
    assert merged.differences(Catalogue.parse(POD)) == []


def test_equal_servers_give_the_same_answer() -> None:
    assert with_more(POD, deepcopy(POD)) == POD


def test_lists_of_other_forms_and_broken_descriptions_stay() -> None:
    dynamic = node(required={"kind": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {}}]}]})
    larger = node(required={"kind": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "b", "inputs": {}}]}]})
    nested = {"key": "b", "inputs": {"required": {"x": [["1"]]}}}
    pod = {
        "Dynamic": dynamic,
        "Broken": "words",
        "Bare": {"output_node": True},
        "Odd": {"input": {"required": []}},
    }
    duty = {"Dynamic": larger, "Broken": node(), "Bare": node(), "Odd": node(required={"x": [["1"]]})}
    assert with_more(pod, duty) == pod
    assert (
        with_more(pod, {**duty, "Dynamic": node(required={"kind": ["COMFY_DYNAMICCOMBO_V3", nested]})}) == pod
    )
