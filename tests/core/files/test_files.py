from typing import Any

import pytest

from comfy_gateway.core.files.files import FileName, files_in, show_output, shown, without_alias

PICTURE = FileName("ComfyUI_00001_.png")


def test_a_file_of_home_keeps_its_name() -> None:
    assert shown(PICTURE, "") == PICTURE


@pytest.mark.parametrize("kind", ["output", "temp"])
@pytest.mark.parametrize("subfolder", ["", "cats", "cats/black"])
def test_an_alias_is_taken_off_as_it_was_put_on(kind: str, subfolder: str) -> None:
    file = FileName("a.png", subfolder, kind)
    there = shown(file, "private-1")
    assert there.subfolder.split("/")[0] == "private-1"
    assert without_alias(there, "private-1") == file
    assert without_alias(there, "private-2") is None
    assert without_alias(file, "private-1") is None


def test_inputs_have_one_name_everywhere() -> None:
    file = FileName("photo.png", "", "input")
    assert shown(file, "private-1") == file
    assert without_alias(FileName("photo.png", "private-1", "input"), "private-1") is None


def test_all_files_of_an_output_are_shown_and_the_rest_stays() -> None:
    output: dict[str, Any] = {
        "images": [
            {"filename": "a.png", "subfolder": "", "type": "output"},
            {"filename": "b.png", "subfolder": "x", "type": "temp", "format": "image/png"},
            {"filename": "in.png", "subfolder": "", "type": "input"},
        ],
        "text": ["filename"],
        "deep": {"more": [{"filename": "c.mp4", "type": "output"}]},
        "animated": (True,),
    }
    told = show_output(output, "p")
    assert [file["subfolder"] for file in told["images"]] == ["p", "p/x", ""]
    assert told["images"][1]["format"] == "image/png"
    assert told["deep"]["more"] == [{"filename": "c.mp4", "type": "output", "subfolder": "p"}]
    assert told["text"] == ["filename"]
    assert told["animated"] == (True,)
    assert output["images"][0]["subfolder"] == ""
    assert show_output(output, "") is output
    assert [file.filename for file in files_in(output)] == ["a.png", "b.png", "in.png", "c.mp4"]
    assert next(files_in(told)) == FileName("a.png", "p", "output")
    assert list(files_in([output]))[1].path == "x/b.png"


def test_what_names_no_file_is_no_file() -> None:
    assert FileName.of({"filename": 3, "type": "output"}) is None
    assert FileName.of({}) is None
    assert list(files_in({"a": {"filename": "", "type": "output"}, "b": [3, None, "x.png"]})) == []
