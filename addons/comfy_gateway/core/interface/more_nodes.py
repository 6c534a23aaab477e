"""An answer of ``/object_info`` that also offers what only another server can run.

A page draws and sends only what ``/object_info`` told it. A user whose pod lacks something of duty's can still use it,
for such prompts stay on duty; so the page has to know of it.
"""

from collections.abc import Mapping
from typing import Any

from comfy_gateway.core.interface.object_info import node_class


def with_more(object_info: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``object_info`` with the classes of ``other`` that it lacks, and with the values that lists of ``other`` have
    beyond its own, at their end: the first value is what a page chooses by itself, and that one runs here.

    Lists of uploads stay as they are. What does not change is shared.
    """
    known = {
        name: _with_values(node, other[name]) if name in other else node for name, node in object_info.items()
    }
    return known | {name: node for name, node in other.items() if name not in known}


def _with_values(node: Any, other: Any) -> Any:
    if (
        not isinstance(node, Mapping)
        or not isinstance(other, Mapping)
        or node.get("input") == other.get("input")
    ):
        return node
    ours, theirs = node_class(node).choices, node_class(other).choices
    groups = {}
    for group_name in ("required", "optional"):
        group = node.get("input", {}).get(group_name)
        if not isinstance(group, Mapping):
            continue
        specs = {
            name: _extended(spec, sorted(theirs[name] - ours[name], key=str))
            for name, spec in group.items()
            if name in ours and name in theirs and not theirs[name] <= ours[name]
        }
        if specs:
            groups[group_name] = {**group, **specs}
    return {**node, "input": {**node["input"], **groups}} if groups else node


def _extended(spec: list[Any], more: list[Any]) -> list[Any]:
    """An input's list in one of its two forms; a list of another form stays as it is."""
    if isinstance(spec[0], list):
        return [[*spec[0], *more], *spec[1:]]
    if spec[0] == "COMBO":
        return [spec[0], {**spec[1], "options": [*spec[1]["options"], *more]}, *spec[2:]]
    return spec
