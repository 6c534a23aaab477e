"""A prompt as a page of text: what it needs, then its graph from the outputs down.

A workflow in API format is an object of nodes by id, ``{"class_type": …, "inputs": {name: value}}``; a value that is
``[node id, output index]`` is a link.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

MAX_LINES: Final = 2000
MAX_VALUE: Final = 80
"""Characters shown of one value."""
_MODELS: Final = (".safetensors", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".sft")
_FILES: Final = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff",
    ".mp4", ".webm", ".mov", ".mkv", ".wav", ".mp3", ".flac", ".ogg", ".glb", ".latent",
)  # fmt: skip
_SEEDS: Final = ("seed", "noise_seed")

type Nodes = Mapping[str, Mapping[str, Any]]


def nodes_of(document: Any) -> Nodes | None:
    """The nodes of what ``POST /prompt`` takes, or of a workflow in API format alone; None for anything else."""
    found = document.get("prompt", document) if isinstance(document, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        return None
    if not all(
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) for node in found.values()
    ):
        return None
    return found


def read_workflow(document: Any) -> str:
    """The text. Raises ValueError for what is no prompt."""
    nodes = nodes_of(document)
    if nodes is None:
        raise ValueError("no prompt")
    lines = [*_header(document, nodes), "", *_graph(nodes)]
    left = len(lines) - MAX_LINES
    return "\n".join(lines if left <= 0 else [*lines[:MAX_LINES], f"… {left} more lines"])


def _header(document: Mapping[str, Any], nodes: Nodes) -> Iterator[str]:
    if document is not nodes:
        for name in ("prompt_id", "client_id", "number", "front"):
            if name in document:
                yield f"{name}: {_shown(document[name])}"
    classes = Counter(node["class_type"] for node in nodes.values())
    yield f"nodes: {len(nodes)} ({', '.join(_times(name, count) for name, count in classes.most_common(12))})"
    for title, found in (
        ("models", _values_with(nodes, _MODELS)),
        ("inputs", _values_with(nodes, _FILES)),
        ("seeds", _named(nodes, _SEEDS)),
        ("sizes", _sizes(nodes)),
    ):
        if values := list(dict.fromkeys(found)):
            yield f"{title}: {', '.join(values)}"


def _values_with(nodes: Nodes, endings: tuple[str, ...]) -> Iterator[str]:
    for node in nodes.values():
        for value in _inputs(node).values():
            if isinstance(value, str) and value.split(" [", 1)[0].lower().endswith(endings):
                yield _shown(value)


def _named(nodes: Nodes, names: tuple[str, ...]) -> Iterator[str]:
    for node in nodes.values():
        for name in names:
            if isinstance(value := _inputs(node).get(name), int):
                yield str(value)


def _sizes(nodes: Nodes) -> Iterator[str]:
    for node in nodes.values():
        width, height = (_inputs(node).get(name) for name in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int):
            count = _inputs(node).get("batch_size", 1)
            yield f"{width}x{height}" + (f" x{count}" if isinstance(count, int) and count != 1 else "")


def _graph(nodes: Nodes) -> Iterator[str]:
    """Each node once, below the first one that takes its output. Without recursion: a chain may be long."""
    taken = {to for node in nodes.values() for _, to in _links(node)}
    shown: set[str] = set()
    # Those that nobody takes, then what is left of cycles.
    for root in [*(key for key in nodes if key not in taken), *nodes]:
        if root in shown:
            continue
        stack = [(0, "", root)]
        while stack:
            depth, name, key = stack.pop()
            indent = "  " * depth + (f"{name} <- " if name else "")
            node = nodes.get(key)
            if node is None:
                yield f"{indent}{_shown(key)} (not there)"
                continue
            title = f"{indent}{key} {_shown(node['class_type'])}"
            if key in shown:
                yield f"{title} (see above)"
                continue
            shown.add(key)
            values = [
                f"{_shown(input_name)}={_shown(value)}"
                for input_name, value in _inputs(node).items()
                if _link(value) is None
            ]
            yield "  ".join([title, *values])
            stack.extend(
                (depth + 1, _shown(input_name), to) for input_name, to in reversed(list(_links(node)))
            )


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    found = node.get("inputs")
    return found if isinstance(found, Mapping) else {}


def _links(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in _inputs(node).items():
        if (to := _link(value)) is not None:
            yield name, to


def _link(value: Any) -> str | None:
    is_link = (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int
    )
    return value[0] if is_link else None


def _times(name: str, count: int) -> str:
    return _shown(name) if count == 1 else f"{_shown(name)} x{count}"


def _shown(value: Any) -> str:
    """On one line, and short."""
    text = " ".join(value.split()) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
