"""A frame of the socket as text."""

import json
import struct
from typing import Any

import pytest

from comfy_gateway.core.readable.frame import read_frame


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("status", {"status": {"exec_info": {"queue_remaining": 3}}}, "status  3 in the queue"),
        (
            "progress",
            {"value": 3, "max": 20, "node": "3", "prompt_id": "p"},
            "progress  3 of 20  node 3  prompt p",
        ),
        (
            "progress_state",
            {"prompt_id": "p", "nodes": {"1": {"state": "running"}, "2": {"state": "finished"}}},
            "progress_state  1 of 2 nodes running  prompt p",
        ),
        ("execution_cached", {"nodes": ["1", "2"], "prompt_id": "p"}, "execution_cached  2 nodes  prompt p"),
        ("executing", {"node": None, "prompt_id": "p"}, "executing  nothing more  prompt p"),
        (
            "executed",
            {"node": "9", "output": {"images": [{"filename": "a.png"}, 3], "text": "x"}, "prompt_id": "p"},
            "executed  a.png  node 9  prompt p",
        ),
        (
            "execution_error",
            {"exception_type": "OOM", "exception_message": "out of\nmemory", "prompt_id": "p"},
            "execution_error  OOM: out of memory  prompt p",
        ),
        ("of.a.custom.node", {"x": 1}, "of.a.custom.node"),
        ("huge", {"x": 2**80}, "huge"),
    ],
)
def test_the_first_line_says_what_it_is_and_the_json_follows(
    kind: str, data: dict[str, Any], line: str
) -> None:
    text = read_frame(json.dumps({"type": kind, "data": data}).encode(), is_text=True)
    first, _, rest = text.partition("\n")
    assert first == line
    assert all(key in rest for key in data)


def test_a_frame_without_data_is_one_line() -> None:
    assert read_frame(b'{"type":"x"}', is_text=True) == "x"


def test_half_a_surrogate_pair_is_shown_as_it_is() -> None:
    assert "ud83d" in read_frame(rb'{"type":"x","data":{"a":"\ud83d"}}', is_text=True)


def test_previews_say_their_format_and_size() -> None:
    assert read_frame(struct.pack(">II", 1, 1) + b"1234", is_text=False) == "preview  JPEG  4 bytes"
    assert read_frame(struct.pack(">II", 1, 9) + b"1234", is_text=False) == "preview  format 9  4 bytes"
    told = b'{"node_id":"3"}'
    with_metadata = struct.pack(">II", 4, len(told)) + told + b"12"
    assert read_frame(with_metadata, is_text=False) == 'preview with metadata  2 bytes\n{"node_id":"3"}'
    assert read_frame(struct.pack(">I", 3) + b"\0\0\0\1" + b"3hello", is_text=False).endswith("3hello")


@pytest.mark.parametrize(
    ("payload", "is_text"),
    [
        (b"no json", True),
        (b"[]", True),
        (b'{"type":1}', True),
        (b"\0\0\0\1", False),
        (b"\0\0\0\7\0\0\0\0", False),
    ],
)
def test_anything_else_is_no_frame_of_comfyuis(payload: bytes, is_text: bool) -> None:
    with pytest.raises(ValueError, match="ComfyUI"):
        read_frame(payload, is_text=is_text)
