"""A frame of ComfyUI's socket: one line that says what it is, then its JSON."""

import struct
from collections.abc import Mapping
from typing import Any, Final

import orjson

from comfy_gateway.core.events import frames

_FORMATS: Final = {frames.JPEG: "JPEG", 2: "PNG"}
_TWO_NUMBERS: Final = struct.Struct(">II")


def read_frame(payload: bytes, *, is_text: bool) -> str:
    """The text. Raises ValueError for what is no frame of ComfyUI's."""
    return _read_text(payload) if is_text else _read_binary(payload)


def _read_text(payload: bytes) -> str:
    message = frames.read(frames.text(payload))
    if message is None:
        raise ValueError("no frame of ComfyUI's")
    data = message.data
    line = [message.kind, *_said(message.kind, data)]
    if (node := data.get("node")) is not None:
        line.append(f"node {node}")
    if message.prompt_id is not None:
        line.append(f"prompt {message.prompt_id}")
    if not data:
        return "  ".join(line)
    try:
        shown = orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        shown = str(data)
    return f"{'  '.join(line)}\n{shown}"


def _said(kind: str, data: Mapping[str, Any]) -> list[str]:
    match kind, data:
        case "status", {"status": {"exec_info": {"queue_remaining": remaining}}}:
            return [f"{remaining} in the queue"]
        case "progress", {"value": value, "max": most}:
            return [f"{value} of {most}"]
        case "progress_state", {"nodes": Mapping() as nodes}:
            running = sum(
                isinstance(node, Mapping) and node.get("state") == "running" for node in nodes.values()
            )
            return [f"{running} of {len(nodes)} nodes running"]
        case "execution_cached", {"nodes": list(nodes)}:
            return [f"{len(nodes)} nodes"]
        case "executing", {"node": None}:
            return ["nothing more"]
        case "executed", {"output": Mapping() as output}:
            return [name for files in output.values() if isinstance(files, list) for name in _names(files)]
        case "execution_error", {"exception_type": problem, "exception_message": said}:
            return [f"{problem}: {' '.join(str(said).split())[:200]}"]
    return []


def _names(files: list[Any]) -> list[str]:
    return [str(file["filename"]) for file in files if isinstance(file, Mapping) and "filename" in file]


def _read_binary(payload: bytes) -> str:
    if len(payload) < _TWO_NUMBERS.size:
        raise ValueError("too short for a frame of ComfyUI's")
    event, second = _TWO_NUMBERS.unpack_from(payload)
    if event == frames.PICTURE:
        size = len(payload) - _TWO_NUMBERS.size
        return f"preview  {_FORMATS.get(second, f'format {second}')}  {size} bytes"
    if event == frames.PICTURE_WITH_METADATA:
        told = payload[_TWO_NUMBERS.size : _TWO_NUMBERS.size + second]
        size = len(payload) - _TWO_NUMBERS.size - len(told)
        return f"preview with metadata  {size} bytes\n{told.decode(errors='replace')}"
    if event == frames.TEXT:
        return f"text\n{payload[4:].decode(errors='replace')}"
    raise ValueError(f"event {event} is none of ComfyUI's")
