"""Which nodes of a prompt have to run, in which order, and under which key each one's result is kept."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from simulators.comfyui.folders import Folders
from simulators.comfyui.nodes import NODE_CLASSES, is_link

type Prompt = dict[str, dict[str, Any]]


def cache_keys(prompt: Prompt, folders: Folders) -> dict[str, str]:
    """A digest of each node's class and inputs, an ancestor's digest in place of a link. Reads files."""
    keys: dict[str, str] = {}

    def key_of(node_id: str) -> str:
        if node_id not in keys:
            node = prompt[node_id]
            inputs = {
                name: ["ancestor", key_of(value[0]), value[1]] if is_link(value) else value
                for name, value in node["inputs"].items()
            }
            fingerprint = NODE_CLASSES[node["class_type"]].fingerprint(folders, inputs)
            told = json.dumps([node["class_type"], fingerprint, inputs], sort_keys=True)
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


def next_of(prompt: Prompt, waiting: list[str]) -> str:
    """Among the nodes that can run: an output first, else one that an output waits for."""
    ready = [node for node in waiting if not any(source in waiting for source in _sources(prompt, node))]
    for node_id in ready:
        if _is_output(prompt, node_id):
            return node_id
    for node_id in ready:
        if any(node_id in _sources(prompt, other) for other in waiting if _is_output(prompt, other)):
            return node_id
    return ready[0]


def _sources(prompt: Prompt, node_id: str) -> list[str]:
    return [value[0] for value in prompt[node_id]["inputs"].values() if is_link(value)]


def _is_output(prompt: Prompt, node_id: str) -> bool:
    return NODE_CLASSES[prompt[node_id]["class_type"]].is_output
