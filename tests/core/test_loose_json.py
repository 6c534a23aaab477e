"""JSON in ComfyUI's dialect."""

import math

import pytest

from comfy_gateway.core import loose_json


def test_plain_json_and_pythons_own_are_both_read() -> None:
    assert loose_json.read(b'{"a": [1, "\xc3\xa9"]}') == {"a": [1, "é"]}
    assert math.isnan(loose_json.read(b"[NaN]")[0])
    assert loose_json.read(b"[Infinity, 1e400]") == [math.inf, math.inf]


@pytest.mark.parametrize("raw", [b"", b"<html>", b"\xff", b"[" * 100_000], ids=lambda raw: repr(raw[:6]))
def test_what_is_no_json_is_said(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loose_json.read(raw)


def test_what_was_read_is_written_without_loss() -> None:
    value = {"a": [1, 2.5, "é\ud800", math.inf, None], "b": 2**70}
    assert loose_json.read(loose_json.write(value)) == value
    assert loose_json.write(math.nan) == b"NaN"


def test_what_cannot_be_written_is_said() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"a": object()}):
        with pytest.raises(ValueError, match="cannot be written"):
            loose_json.write(value)
