"""Which nodes of a prompt have to run, in which order, and under which key each one's result is kept."""

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

from simulators.comfyui.node_class import is_link
from simulators.comfyui.nodes import Nodes

type Prompt = dict[str, dict[str, Any]]


def note_changes(prompt: Prompt, nodes: Nodes) -> None:
    """Puts `is_changed` into the nodes whose class has a fingerprint. Reads files.

    One that the prompt brings along is believed (execution.py:69): a workflow taken out of a picture, whose
    prompt carries it, is answered from the cache although the file has changed. A fingerprint that cannot be
    taken is another one each time.
    """
    for node in prompt.values():
        node_class = nodes.classes[node["class_type"]]
        if node_class.fingerprint is None or "is_changed" in node:
            continue
        try:
            node["is_changed"] = [node_class.fingerprint(nodes.folders, node["inputs"])]
        except (OSError, LookupError, TypeError, AttributeError):
            node["is_changed"] = f"NaN {uuid.uuid4()}"


def cache_keys(prompt: Prompt) -> dict[str, str]:
    """A digest of each node's class, changes and inputs, an ancestor's digest in place of a link."""
    keys: dict[str, str] = {}

    def key_of(node_id: str) -> str:
        if node_id not in keys:
            node = prompt[node_id]
            inputs = {
                name: ["ancestor", key_of(value[0]), value[1]] if is_link(value) else value
                for name, value in node["inputs"].items()
            }
            told = json.dumps([node["class_type"], node.get("is_changed"), inputs], sort_keys=True)
            keys[node_id] = hashlib.sha256(told.encode()).hexdigest()
        return keys[node_id]

    for node_id in prompt:
        try:
            key_of(node_id)
        except (LookupError, RecursionError):  # a broken node that no output needs: validation let it pass
            keys[node_id] = f"broken {node_id}"
    return keys


def needed(prompt: Prompt, outputs: list[str], is_cached: Callable[[str], bool]) -> list[str]:
    """The outputs, cached or not, and what they need that is not in the cache."""
    found: list[str] = []
    ahead = list(reversed(outputs))
    while ahead:
        node_id = ahead.pop()
        if node_id not in found:
            found.append(node_id)
            ahead += [source for source in _sources(prompt, node_id) if not is_cached(source)]
    return found


def next_of(prompt: Prompt, waiting: list[str], nodes: Nodes) -> str:
    """Among the nodes that can run: an output first, else one that is one or two steps before an output
    (comfy_execution/graph.py:229)."""

    def is_output(node_id: str) -> bool:
        return nodes.classes[prompt[node_id]["class_type"]].is_output

    def followers(node_id: str) -> list[str]:
        return [other for other in waiting if node_id in _sources(prompt, other)]

    ready = [node for node in waiting if not any(source in waiting for source in _sources(prompt, node))]
    preferences: list[Callable[[str], bool]] = [
        is_output,
        lambda node_id: any(is_output(after) for after in followers(node_id)),
        lambda node_id: any(is_output(last) for after in followers(node_id) for last in followers(after)),
    ]
    for is_preferred in preferences:
        for node_id in ready:
            if is_preferred(node_id):
                return node_id
    return ready[0]


def _sources(prompt: Prompt, node_id: str) -> list[str]:
    return [value[0] for value in prompt[node_id]["inputs"].values() if is_link(value)]
