"""The end of a prompt, told by us because no socket told it.

Shapes and order are ComfyUI's (0.3.64): start and cached nodes, ``executed`` for each output, the verdict,
and ``executing`` with node null. Most of it stands in ``/history/{prompt_id}``:

    {"outputs": {node: output}, "meta": {node: {"display_node": …}},
     "status": {"status_str": "success" | "error", "messages": [[type, data], …]}}

Entries come here in shown form: whoever has one from a server puts the server's alias in first (``core.files.files``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_gateway.core.events import frames
from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.events.stories import VERDICTS, Story
from comfy_gateway.core.prompts.prompts import Outcome

LOST_MESSAGE: Final = "The server restarted and lost this prompt"
FAILED_MESSAGE: Final = "The prompt failed"


@dataclass(frozen=True, slots=True)
class MadeUp:
    """What the clients still have to hear, in order, and how the prompt ended."""

    frames: list[Frame]
    outcome: Outcome


def from_history(prompt_id: str, entry: Mapping[str, Any], story: Story) -> MadeUp:
    """What is left to tell of a prompt that a server has finished."""
    kind, verdict = next(
        ((kind, data) for kind, data in reversed(list(_messages(entry))) if kind in VERDICTS),
        _plain_verdict(prompt_id, entry),
    )
    told = missed(prompt_id, entry, story)
    if not story.has_verdict:
        told.append(frames.write(kind, verdict))
    return MadeUp([*told, release(prompt_id)], VERDICTS[kind])


def from_outcome(prompt_id: str, outcome: Outcome, story: Story, *, now_ms: int) -> MadeUp:
    """What is left to tell of a prompt that has no entry anywhere. ``outcome`` is an ending."""
    if story.has_verdict:
        return MadeUp([release(prompt_id)], outcome)
    return MadeUp([_verdict(prompt_id, outcome, story, now_ms), release(prompt_id)], outcome)


def missed(prompt_id: str, entry: Mapping[str, Any], story: Story) -> list[Frame]:
    """What comes before the verdict and was not told."""
    told = []
    if not story.has_begun:
        told += [frames.write(kind, data) for kind, data in _messages(entry) if kind not in VERDICTS]
    return [*told, *_outputs(prompt_id, entry, story)]


def start(prompt_id: str, *, now_ms: int) -> Frame:
    """``execution_start`` of a prompt that is already under way."""
    return frames.write("execution_start", {"prompt_id": prompt_id, "timestamp": now_ms})


def release(prompt_id: str) -> Frame:
    """``executing`` with node null."""
    return frames.write("executing", {"node": None, "prompt_id": prompt_id})


def lost_entry(prompt_id: str, number: float, document: Mapping[str, Any], *, now_ms: int) -> dict[str, Any]:
    """What the history says of a prompt that no server knows any more. ``document`` is the body of its POST.

    Of ``extra_data`` only the workflow is kept: the rest may hold keys.
    """
    extra_data = document.get("extra_data")
    pnginfo = extra_data.get("extra_pnginfo") if isinstance(extra_data, Mapping) else None
    extra = {} if pnginfo is None else {"extra_pnginfo": pnginfo}
    error = _error(prompt_id, LOST_MESSAGE, "PromptLost") | {"timestamp": now_ms}
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
        return "execution_error", _error(prompt_id, FAILED_MESSAGE, "PromptFailed")
    return "execution_success", {"prompt_id": prompt_id}


def _verdict(prompt_id: str, outcome: Outcome, story: Story, now_ms: int) -> Frame:
    about = {"prompt_id": prompt_id, "timestamp": now_ms}
    match outcome:
        case Outcome.DONE:
            return frames.write("execution_success", about)
        case Outcome.INTERRUPTED:
            stopped = {"node_id": "", "node_type": "", "executed": sorted(story.executed)}
            return frames.write("execution_interrupted", about | stopped)
        case Outcome.LOST:
            return frames.write("execution_error", _error(prompt_id, LOST_MESSAGE, "PromptLost") | about)
        case _:
            return frames.write("execution_error", _error(prompt_id, FAILED_MESSAGE, "PromptFailed") | about)


def _outputs(prompt_id: str, entry: Mapping[str, Any], story: Story) -> Iterator[Frame]:
    outputs, meta = entry.get("outputs"), entry.get("meta")
    for node, output in outputs.items() if isinstance(outputs, Mapping) else ():
        if node in story.executed:
            continue
        about = meta.get(node) if isinstance(meta, Mapping) else None
        display_node = about.get("display_node", node) if isinstance(about, Mapping) else node
        data = {"node": node, "display_node": display_node, "output": output, "prompt_id": prompt_id}
        yield frames.write("executed", data)


def _error(prompt_id: str, message: str, kind: str) -> dict[str, Any]:
    """The front end's dialog joins ``traceback`` and shows the rest as text, so none of these may be null."""
    return {
        "prompt_id": prompt_id,
        "node_id": "",
        "node_type": "",
        "executed": [],
        "exception_message": message,
        "exception_type": kind,
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }
