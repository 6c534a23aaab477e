import struct

import orjson
import pytest

from comfy_gateway.core.events import frames


def picture(event: int, kind: int) -> bytes:
    return struct.pack(">II", event, kind) + b"file"


def picture_with_metadata(metadata: bytes) -> bytes:
    return struct.pack(">II", 4, len(metadata)) + metadata + b"file"


@pytest.mark.parametrize(
    ("payload", "is_preview"),
    [
        pytest.param(picture(1, 1), True, id="jpeg"),
        pytest.param(picture(1, 2), False, id="png is the result of SaveImageWebsocket"),
        pytest.param(picture_with_metadata(b'{"image_type": "image/jpeg"}'), True, id="jpeg with metadata"),
        pytest.param(picture_with_metadata(b'{"image_type": "image/png"}'), False, id="png with metadata"),
        pytest.param(picture_with_metadata(b"{}"), True, id="metadata without a type"),
        pytest.param(picture_with_metadata(b"[]"), True, id="metadata of another shape"),
        pytest.param(picture_with_metadata(b"{nonsense"), True, id="metadata that is no JSON"),
        pytest.param(picture(3, 1), False, id="text event"),
        pytest.param(b"\0\0\0\1", False, id="too short"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_only_pictures_of_progress_are_previews(payload: bytes, is_preview: bool) -> None:
    assert frames.binary(payload).is_preview is is_preview


@pytest.mark.parametrize(
    ("payload", "prompt_id"),
    [
        (picture_with_metadata(b'{"prompt_id": "p"}'), "p"),
        (picture_with_metadata(b'{"prompt_id": 3}'), None),
        (picture_with_metadata(b"{}"), None),
        (picture_with_metadata(b"[]"), None),
        (picture_with_metadata(b"{nonsense"), None),
        (b"\0\0\0\4", None),
        (picture(1, 1), None),
        (b"", None),
    ],
)
def test_a_picture_with_metadata_may_name_its_prompt(payload: bytes, prompt_id: str | None) -> None:
    assert frames.prompt_of_bytes(frames.binary(payload)) == prompt_id


def test_a_text_frame_is_never_a_preview() -> None:
    assert not frames.text(picture(1, 1)).is_preview


def test_a_written_frame_reads_back() -> None:
    frame = frames.write("executing", {"node": "3", "prompt_id": "p"})

    message = frames.read(frame)

    assert frame.is_text
    assert frame.size_bytes == len(frame.payload)
    assert orjson.loads(frame.payload) == {"type": "executing", "data": {"node": "3", "prompt_id": "p"}}
    assert message == frames.Message("executing", {"node": "3", "prompt_id": "p"})


@pytest.mark.parametrize("payload", [b"{", b"[]", b"3", b'{"data": {}}', b'{"type": 5}', b"\xff"])
def test_text_that_is_not_comfyuis_says_nothing(payload: bytes) -> None:
    assert frames.read(frames.text(payload)) is None


def test_a_binary_frame_says_nothing() -> None:
    assert frames.read(frames.binary(b'{"type": "status"}')) is None


@pytest.mark.parametrize(
    "payload", [b'{"type": "x"}', b'{"type": "x", "data": null}', b'{"type": "x", "data": 3}']
)
def test_data_that_is_no_object_counts_as_empty(payload: bytes) -> None:
    message = frames.read(frames.text(payload))

    assert message == frames.Message("x", {})


@pytest.mark.parametrize(
    ("kind", "data", "is_release"),
    [
        ("executing", {"node": None, "prompt_id": "p"}, True),
        ("executing", {"node": "3", "prompt_id": "p"}, False),
        ("executing", {"prompt_id": "p"}, False),
        ("executed", {"node": None}, False),
    ],
)
def test_executing_without_a_node_releases_the_prompt(
    kind: str, data: dict[str, object], is_release: bool
) -> None:
    assert frames.Message(kind, data).is_release is is_release


@pytest.mark.parametrize(
    ("data", "prompt_id"), [({"prompt_id": "p"}, "p"), ({"prompt_id": 3}, None), ({}, None)]
)
def test_a_prompt_id_is_text_or_none(data: dict[str, object], prompt_id: str | None) -> None:
    assert frames.Message("progress", data).prompt_id == prompt_id


def test_comfyuis_nan_is_read_and_becomes_null_when_it_is_written() -> None:
    message = frames.read(frames.text(b'{"type": "executed", "data": {"output": {"a": [NaN]}}}'))

    assert message is not None
    assert message.kind == "executed"
    assert orjson.loads(frames.write(message.kind, message.data).payload)["data"] == {"output": {"a": [None]}}


@pytest.mark.parametrize("odd", ["\ud800", 2**70])
def test_what_the_fast_writer_cannot_write_is_written_all_the_same(odd: object) -> None:
    frame = frames.write("x", {"odd": odd})

    assert frames.read(frame) == frames.Message("x", {"odd": odd})


OUTPUT = {"images": [{"filename": "a.png", "subfolder": "x", "type": "output"}], "text": ["a.png"]}


@pytest.mark.parametrize("kind", ["executed", "somebody.elses"])
def test_files_are_shown_under_the_alias_in_events_of_every_kind(kind: str) -> None:
    frame, message = frames.show(*both(kind, {"prompt_id": "p", "output": OUTPUT}), "private-1")

    shown = {
        "images": [{"filename": "a.png", "subfolder": "private-1/x", "type": "output"}],
        "text": ["a.png"],
    }
    assert message.data == {"prompt_id": "p", "output": shown}
    assert frames.read(frame) == message


@pytest.mark.parametrize(
    ("data", "alias"),
    [
        pytest.param({"output": OUTPUT}, "", id="home"),
        pytest.param({"node": "3"}, "private-1", id="no file"),
        pytest.param({"filename": "a.png"}, "private-1", id="a name that is no file of an output"),
        pytest.param(
            {"output": {"filename": "a.png", "subfolder": "", "type": "input"}}, "private-1", id="an input"
        ),
    ],
)
def test_a_frame_without_anything_to_alias_stays_byte_for_byte(data: dict[str, object], alias: str) -> None:
    frame, message = both("executed", data)

    shown_frame, shown_message = frames.show(frame, message, alias)

    assert shown_frame is frame
    assert shown_message is message


def both(kind: str, data: dict[str, object]) -> tuple[frames.Frame, frames.Message]:
    frame = frames.write(kind, data)
    message = frames.read(frame)
    assert message is not None
    return frame, message


@pytest.mark.parametrize(("event", "is_named"), [(1, False), (3, False), (4, True)])
def test_only_a_picture_with_metadata_names_its_prompt(event: int, is_named: bool) -> None:
    assert frames.names_its_prompt(frames.binary(picture(event, 1))) is is_named
