"""ComfyUI's answer to ``GET /object_info``, read class by class.

``{"KSampler": {"input": {"required": {name: spec}, "optional": {…}, "hidden": {…}}, "output_node": false, …}, …}``
(0.3.64, ``server.py::node_info``). A spec is a list of a type and, mostly, options. What can be chosen stands there in
four forms:

* ``[["a", "b"], {…}]``: the classic one, a list in the type's place.
* ``["COMBO", {"options": ["a", "b"]}]``: nodes of the newer schema. Without ``options``, or with ``remote``, the page
  fetches the list from elsewhere, and nobody knows it here.
* ``["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {"required": …}}]}]``: each key brings inputs of its
  own, which a prompt names ``format.quality``.
* ``["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"image": spec}}, "prefix": "image", "max": 50}}]`` (or
  ``names``): a row of inputs ``images.image0``, ``images.image1``, …

``COMFY_DYNAMICSLOT_V3`` has further ``inputs`` that appear once something is linked to it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

type Choice = str | int | float | bool | None

MOST_GROWN: Final = 100
"""Inputs in one row; the newer core allows as many."""
DEEPEST: Final = 8
"""Levels of inputs within inputs; the newer core itself has two."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class NodeClass:
    """What the gateway needs to know of a node class. Names of inputs are as a prompt writes them."""

    choices: Mapping[str, frozenset[Choice]] = field(default_factory=dict)
    """Allowed values by input, of those whose list is known and is no list of uploads."""
    uploads: frozenset[str] = frozenset()
    """Inputs that name files which people upload."""
    is_output: bool = False


def descriptions(body: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and description of each class, one after the other.

    Never more than one of them is held: the answer of a server with many custom nodes has several MB, its objects
    take ten times as much, and reading it in one piece would keep the other threads from running for as long.
    Python's ``json`` it is, for ComfyUI writes ``Infinity``. Raises ValueError for anything else.
    """
    text = body.decode("utf-8")
    at = _after(text, 0, "{")
    if text.startswith("}", at):
        return
    while True:
        name, at = _value(text, at)
        description, at = _value(text, _after(text, at, ":"))
        if not isinstance(name, str) or not isinstance(description, Mapping):
            raise ValueError("the answer does not describe node classes")
        yield name, description
        at = _space(text, at)
        if text.startswith("}", at):
            return
        at = _after(text, at, ",")


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _after(text: str, at: int, sign: str) -> int:
    at = _space(text, at)
    if not text.startswith(sign, at):
        raise ValueError(f"the answer is no JSON object: {sign} expected at character {at}")
    return _space(text, at + 1)


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None


def node_class(description: Mapping[str, Any]) -> NodeClass:
    """One class. What has an unknown shape is passed over: nothing is demanded of it then."""
    choices: dict[str, set[Choice] | None] = {}
    uploads: set[str] = set()
    for name, kind, options in _inputs(description.get("input"), "", DEEPEST):
        if _is_upload(options):
            uploads.add(name)
        listed = _choices(kind, options)
        # An input may come from several keys of a dynamic list: every value of any of them will do.
        known = choices.setdefault(name, set())
        choices[name] = None if known is None or listed is None else known | listed
    closed = {
        name: frozenset(listed)
        for name, listed in choices.items()
        if listed is not None and name not in uploads
    }
    return NodeClass(closed, frozenset(uploads), description.get("output_node") is True)


def _inputs(groups: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Name, type and options of each input; ``groups`` is ``{"required": {name: spec}, …}``."""
    if not isinstance(groups, Mapping) or depth == 0:
        return
    for group in ("required", "optional"):
        specs = groups.get(group)
        for name, spec in specs.items() if isinstance(specs, Mapping) else ():
            if isinstance(spec, list) and spec:
                options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
                yield from _input(prefix + name, spec[0], options, depth)


def _input(
    name: str, kind: Any, options: Mapping[str, Any], depth: int
) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    if kind == "COMFY_AUTOGROW_V3":
        yield from _grown(name, options.get("template"), depth)
        return
    yield name, kind, options
    if kind == "COMFY_DYNAMICCOMBO_V3":
        listed = options.get("options")
        for option in listed if isinstance(listed, list) else ():
            if isinstance(option, Mapping):
                yield from _inputs(option.get("inputs"), f"{name}.", depth - 1)
    elif kind == "COMFY_DYNAMICSLOT_V3":
        yield from _inputs(options.get("inputs"), f"{name}.", depth - 1)


def _grown(name: str, template: Any, depth: int) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    if not isinstance(template, Mapping):
        return
    inner = next(_inputs(template.get("input"), "", depth - 1), None)
    if inner is None:
        return
    names, most = template.get("names"), template.get("max")
    if not isinstance(names, list):
        count = min(most, MOST_GROWN) if isinstance(most, int) else MOST_GROWN
        names = [f"{template.get('prefix', '')}{position}" for position in range(count)]
    for each in names[:MOST_GROWN]:
        yield f"{name}.{each}", inner[1], inner[2]


def _is_upload(options: Mapping[str, Any]) -> bool:
    """``image_upload``, ``video_upload``, ``file_upload`` … or a folder of images that the list shows."""
    return bool(options.get("image_folder")) or any(
        flag is True and name.endswith("_upload") for name, flag in options.items()
    )


def _choices(kind: Any, options: Mapping[str, Any]) -> set[Choice] | None:
    """The values that may be chosen, or None where this is no list, or one that is not told here."""
    listed: Any = None
    if isinstance(kind, list):
        listed = kind
    elif kind == "COMBO" and not options.get("remote"):
        listed = options.get("options")
    elif kind == "COMFY_DYNAMICCOMBO_V3":
        keyed = options.get("options")
        if isinstance(keyed, list):
            listed = [option.get("key") if isinstance(option, Mapping) else option for option in keyed]
    # Some custom nodes list objects (a name and its picture) and judge the value themselves.
    if not isinstance(listed, list) or any(isinstance(value, list | dict) for value in listed):
        return None
    return set(listed)
