"""The end of a prompt, told by us because the socket on which the server told it was lost.

Shapes and order are ComfyUI's (0.3.64): start and cached nodes, ``executed`` for each output, the verdict,
and ``executing`` with node null. All of it stands in ``/history/{prompt_id}``:

    {"outputs": {node: output}, "meta": {node: {"display_node": …}},
     "status": {"status_str": "success" | "error", "messages": [[type, data], …]}}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_gateway.core import frames
from comfy_gateway.core.frames import Frame
from comfy_gateway.core.prompts import Outcome
from comfy_gateway.core.stories import VERDICTS, Story

LOST_MESSAGE: Final = "The server restarted and lost this prompt"


@dataclass(frozen=True, slots=True)
class MadeUp:
    """What the clients still have to hear, in order, and how the prompt ended."""

    frames: list[Frame]
    outcome: Outcome


def from_history(prompt_id: str, entry: Mapping[str, Any], story: Story) -> MadeUp:
    """What is left to tell of a prompt that the server has finished."""
    messages = list(_messages(entry))
    kind, verdict = next(
        ((kind, data) for kind, data in reversed(messages) if kind in VERDICTS),
        _plain_verdict(prompt_id, entry),
    )
    told: list[Frame] = []
    if not story.has_begun:
        told += [frames.write(kind, data) for kind, data in messages if kind not in VERDICTS]
    told += _outputs(prompt_id, entry, story)
    if not story.has_verdict:
        told.append(frames.write(kind, verdict))
    told.append(_release(prompt_id))
    return MadeUp(told, VERDICTS[kind])


def lost(prompt_id: str, story: Story, *, now_ms: int) -> MadeUp:
    """What is left to tell of a prompt that no server knows any more: an error that the front end can
    show.
    """
    told = (
        []
        if story.has_verdict
        else [frames.write("execution_error", _error(prompt_id, LOST_MESSAGE, now_ms))]
    )
    return MadeUp([*told, _release(prompt_id)], Outcome.LOST)


def lost_entry(prompt_id: str, number: float, document: Mapping[str, Any], *, now_ms: int) -> dict[str, Any]:
    """What the history says of a prompt that no server knows any more. ``document`` is the body of its POST.

    Of ``extra_data`` only the workflow is kept: the rest may hold keys.
    """
    extra_data = document.get("extra_data")
    pnginfo = extra_data.get("extra_pnginfo") if isinstance(extra_data, Mapping) else None
    extra = {} if pnginfo is None else {"extra_pnginfo": pnginfo}
    error = _error(prompt_id, LOST_MESSAGE, now_ms)
    return {
        "prompt": [number, prompt_id, document.get("prompt", {}), extra, []],
        "outputs": {},
        "status": {
            "status_str": "error",
            "completed": False,
            "messages": [["execution_error", error]],
        },
        "meta": {},
    }


def _messages(entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, Mapping) else None
    for message in messages if isinstance(messages, list) else []:
        match message:
            case [str(kind), dict(data)]:
                yield kind, data


def _plain_verdict(prompt_id: str, entry: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """For servers that keep no messages."""
    status = entry.get("status")
    if isinstance(status, Mapping) and status.get("status_str") == "error":
        return "execution_error", _error(prompt_id, "The prompt failed", None)
    return "execution_success", {"prompt_id": prompt_id}


def _outputs(prompt_id: str, entry: Mapping[str, Any], story: Story) -> Iterator[Frame]:
    outputs, meta = entry.get("outputs"), entry.get("meta")
    for node, output in outputs.items() if isinstance(outputs, Mapping) else ():
        if node in story.executed:
            continue
        about = meta.get(node) if isinstance(meta, Mapping) else None
        display_node = about.get("display_node", node) if isinstance(about, Mapping) else node
        data = {"node": node, "display_node": display_node, "output": output, "prompt_id": prompt_id}
        yield frames.write("executed", data)


def _error(prompt_id: str, message: str, now_ms: int | None) -> dict[str, Any]:
    """The front end's dialog joins ``traceback`` and shows the rest as text, so none of these may be null."""
    return {
        "prompt_id": prompt_id,
        "node_id": "",
        "node_type": "",
        "executed": [],
        "exception_message": message,
        "exception_type": "PromptLost" if now_ms is not None else "PromptFailed",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        **({} if now_ms is None else {"timestamp": now_ms}),
    }


def _release(prompt_id: str) -> Frame:
    return frames.write("executing", {"node": None, "prompt_id": prompt_id})
