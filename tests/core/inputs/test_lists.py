"""The user's own files in the lists of /object_info."""

from typing import Any

import pytest

from comfy_gateway.core.inputs.lists import listed_names, with_files


def node(*spec: Any, group: str = "required", name: str = "file") -> dict[str, Any]:
    return {"input": {group: {name: list(spec)}, "hidden": {"id": "UNIQUE_ID"}}, "output": ["X"]}


def listed(info: Any) -> Any:
    spec = info["N"]["input"]["required"]["file"]
    return spec[0] if isinstance(spec[0], list) else spec[1]["options"]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("image_upload", ["a.png", "b.JPG"]),
        ("animated_image_upload", ["a.png", "b.JPG"]),
        ("audio_upload", ["a.png", "c.wav", "d.mp4"]),
        ("video_upload", ["a.png", "d.mp4"]),
        ("file_upload", ["3d/e.glb", "a.png"]),
        ("their_upload", ["a.png", "f.PNG"]),
    ],
)
@pytest.mark.parametrize("is_new_form", [False, True])
def test_each_kind_of_upload_lists_what_it_takes(flag: str, expected: list[str], is_new_form: bool) -> None:
    spec = (
        node("COMBO", {"options": ["a.png"], flag: True, "multiselect": False})
        if is_new_form
        else node(["a.png"], {flag: True})
    )
    names = ["b.JPG", "c.wav", "d.mp4", "3d/e.glb", "sub/x.png", "noending"]
    if flag == "their_upload":
        names = ["f.PNG", "c.wav", "sub/x.png"]
    info = with_files({"N": spec}, names)
    assert listed(info) == expected
    assert info["N"]["output"] == ["X"]
    assert info["N"]["input"]["hidden"] == {"id": "UNIQUE_ID"}


def test_an_unsorted_list_keeps_its_order_and_no_name_comes_twice() -> None:
    info = with_files({"N": node(["z.png", "a.png"], {"image_upload": True})}, ["b.png", "a.png"])
    assert listed(info) == ["z.png", "a.png", "b.png"]


def test_names_that_the_gateway_made_are_left_out() -> None:
    info = with_files({"N": node(["a (1).png", "a.png"], {"image_upload": True})}, (), {"a (1).png"})
    assert listed(info) == ["a.png"]


@pytest.mark.parametrize(
    "described",
    [
        node(["a.png"], {"image_upload": True, "image_folder": "output"}),
        node(["a.png"], {"image_upload": False}),
        node(["euler", "ddim"], {"default": "euler"}),
        node(["euler"]),
        node("COMBO", {"image_upload": True, "remote": {"route": "/x"}}),
        node("IMAGE", {}),
        node("IMAGE"),
        {"input": {"required": None}},
        {"input": None},
        {},
        None,
        "what",
    ],
)
def test_everything_else_stays_the_very_same(described: Any) -> None:
    assert with_files({"N": described}, ["b.png"])["N"] is described


def test_a_list_in_which_nothing_is_new_stays_the_very_same() -> None:
    described = node(["a.png"], {"image_upload": True})
    assert with_files({"N": described}, ["a.png", "v.mp4"], {"gone.png"})["N"] is described


def test_the_names_in_all_lists_are_told() -> None:
    info = {
        "A": node(["a.png"], {"image_upload": True}),
        "B": node("COMBO", {"options": ["v.mp4", 3], "video_upload": True}, group="optional"),
        "C": node(["euler"], {}),
        "D": None,
    }
    assert listed_names(info) == {"a.png", "v.mp4"}
