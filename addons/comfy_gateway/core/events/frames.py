"""Frames of ComfyUI's socket: what they say, which of them are previews, and how ours are written.

Text is JSON ``{"type": …, "data": {…}}``. Binary begins with a big-endian uint32, the event (0.3.64,
``protocol.py``): 1 is a picture (uint32 format, 1 JPEG or 2 PNG, then the file), 3 is text, 4 is a picture
with metadata (uint32 length, JSON, then the file). Only the last names its prompt and node; whoever hears one of
the others takes it to be from the node that was last said to execute.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from comfy_gateway.core import loose_json
from comfy_gateway.core.files.files import show_output

PICTURE: Final = 1
TEXT: Final = 3
PICTURE_WITH_METADATA: Final = 4
JPEG: Final = 1
_TWO_NUMBERS: Final = struct.Struct(">II")
_WITH_METADATA: Final = struct.pack(">I", PICTURE_WITH_METADATA)


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a socket, as bytes. Made by ``text``, ``binary`` and ``write``."""

    payload: bytes
    is_text: bool
    is_preview: bool = False
    """May be dropped when a client is too slow: a later one shows the same and more."""
    receipt: int = 0
    """Number under which a client is asked to confirm that it has got this, or 0 (``core.events.receipts``)."""

    @property
    def size_bytes(self) -> int:
        """Length of the payload."""
        return len(self.payload)


@dataclass(frozen=True, slots=True)
class Message:
    """What a text frame says."""

    kind: str
    data: Mapping[str, Any]
    """Empty where the frame had no object there."""

    @property
    def prompt_id(self) -> str | None:
        """The prompt that this is about, or None."""
        prompt_id = self.data.get("prompt_id")
        return prompt_id if isinstance(prompt_id, str) else None

    @property
    def is_release(self) -> bool:
        """``executing`` with node null: the server has nothing more to say about the prompt."""
        return self.kind == "executing" and "node" in self.data and self.data["node"] is None


def text(payload: bytes) -> Frame:
    """A text frame from its UTF-8 bytes."""
    return Frame(payload, is_text=True)


def binary(payload: bytes) -> Frame:
    """A binary frame from its bytes."""
    return Frame(payload, is_text=False, is_preview=_is_preview(payload))


def write(kind: str, data: Mapping[str, Any]) -> Frame:
    """A text frame of that type. NaN becomes null where that is possible: browsers read nothing else.

    Raises ValueError for what is nested too deeply.
    """
    content = {"type": kind, "data": data}
    try:
        return text(orjson.dumps(content))
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        return text(loose_json.write(content))


def read(frame: Frame) -> Message | None:
    """What a text frame says; None for a binary one and for text that is not ComfyUI's JSON."""
    if not frame.is_text:
        return None
    try:
        content = loose_json.read(frame.payload)
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        return None
    data = content.get("data")
    return Message(content["type"], data if isinstance(data, dict) else {})


def show(frame: Frame, message: Message, alias: str) -> tuple[Frame, Message]:
    """The same with every file in it shown under the server's alias (``core.files.files``).

    Nodes of third parties have messages of their own kinds, so all are looked through; a frame that names no file
    stays as it is, byte for byte.
    """
    if not alias or b'"filename"' not in frame.payload:
        return frame, message
    data = show_output(message.data, alias)
    return (
        (frame, message) if data == message.data else (write(message.kind, data), Message(message.kind, data))
    )


def names_its_prompt(frame: Frame) -> bool:
    """Whether a binary frame says itself which prompt and node it is from."""
    return frame.payload.startswith(_WITH_METADATA)


def prompt_of_bytes(frame: Frame) -> str | None:
    """The prompt that a binary frame says it is from, or None where it does not say."""
    if not names_its_prompt(frame) or len(frame.payload) < _TWO_NUMBERS.size:
        return None
    _, length = _TWO_NUMBERS.unpack_from(frame.payload)
    try:
        metadata = orjson.loads(frame.payload[_TWO_NUMBERS.size : _TWO_NUMBERS.size + length])
    except orjson.JSONDecodeError:
        return None
    prompt_id = metadata.get("prompt_id") if isinstance(metadata, dict) else None
    return prompt_id if isinstance(prompt_id, str) else None


def _is_preview(payload: bytes) -> bool:
    """Whether the bytes are a picture that only shows progress.

    Samplers send JPEG. A PNG is a result: the node SaveImageWebsocket has no other way to deliver it.
    """
    if len(payload) < _TWO_NUMBERS.size:
        return False
    event, second = _TWO_NUMBERS.unpack_from(payload)
    if event == PICTURE:
        return bool(second == JPEG)
    if event != PICTURE_WITH_METADATA:
        return False
    try:
        metadata = orjson.loads(payload[_TWO_NUMBERS.size : _TWO_NUMBERS.size + second])
    except orjson.JSONDecodeError:
        return True
    return not isinstance(metadata, dict) or metadata.get("image_type") != "image/png"
