"""Which files a prompt names, and the prompt with other names in it."""

import time
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.refs import (
    InputRef,
    canonical,
    first_of_numbered,
    may_name_files,
    numbered,
    read,
    refs_in,
    strays_in,
    with_refs,
    written,
)

UPLOADS = {
    "LoadImage": frozenset({"image"}),
    "LoadVideo": frozenset({"file"}),
    "LoadImageSetNode": frozenset({"images"}),
}


def upload_inputs(class_type: str) -> frozenset[str]:
    return UPLOADS.get(class_type, frozenset())


def prompt(**nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    graph = {id_: {"class_type": kind, "inputs": inputs} for id_, (kind, inputs) in nodes.items()}
    return {"prompt": graph, "client_id": "c", "prompt_id": "p"}


def texts(document: dict[str, Any]) -> list[str]:
    return [written(ref.file, is_annotated=ref.is_annotated) for ref in refs_in(document, upload_inputs)]


@pytest.mark.parametrize(
    ("text", "filename", "subfolder", "folder", "is_annotated"),
    [
        ("a.png", "a.png", "", "input", False),
        ("sub/deep/a b.png", "a b.png", "sub/deep", "input", False),
        ("a.png [output]", "a.png", "", "output", True),
        ("private-k3/a.png [temp]", "a.png", "private-k3", "temp", True),
        ("a.png [input]", "a.png", "", "input", True),
        ("a.png[output]", "a.pn", "", "output", True),
        ("a [output] b.png", "a [output] b.png", "", "input", False),
        ("a.png [output] ", "a.png [output] ", "", "input", False),
        ("a.png [Output]", "a.png [Output]", "", "input", False),
        ("a.png [temp] [input]", "a.png [temp]", "", "input", True),
        ("./sub//a.png", "a.png", "sub", "input", False),
        ("[x].png", "[x].png", "", "input", False),
        ("Bildschirmfoto um 1.00\u202fPM.png", "Bildschirmfoto um 1.00\u202fPM.png", "", "input", False),
        ("👩\u200d🚀.png", "👩\u200d🚀.png", "", "input", False),
        ("日本/絵.png", "絵.png", "日本", "input", False),
        (".hidden.png", ".hidden.png", "", "input", False),
        ("a..b.png", "a..b.png", "", "input", False),
    ],
)
def test_a_text_is_read_as_comfyui_reads_it(
    text: str, filename: str, subfolder: str, folder: str, is_annotated: bool
) -> None:
    assert read(text) == InputRef(FileName(filename, subfolder, folder), is_annotated)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "../a.png",
        "sub/../../a.png",
        "sub/../a.png [output]",
        "private-k3/.. [output]",
        "..",
        "a\\b.png",
        "a\nb.png",
        "a\x00.png",
        "a\ud800.png",
        "[output]",
        " [output]",
        "/ [temp]",
        "./",
        "x" * 256,
        "/".join(["y" * 100] * 11),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_nobodys_file(text: str) -> None:
    assert read(text) is None


def test_an_unknown_folder_is_nobodys() -> None:
    assert canonical(FileName("a.png", type="models")) is None


def test_folders_within_a_file_name_count_as_subfolders() -> None:
    assert canonical(FileName("x/a.png", "sub/")) == FileName("a.png", "sub/x", "output")


names = st.text(min_size=1, max_size=30)
files = st.builds(
    FileName, names, st.lists(names, max_size=3).map("/".join), st.sampled_from(["input", "output", "temp"])
)


@given(files, st.booleans())
def test_what_is_written_is_read_as_the_same_file(file: FileName, is_annotated: bool) -> None:
    known = canonical(file)
    if known is not None:
        ref = read(written(known, is_annotated=is_annotated))
        assert ref is not None
        assert ref.file == known
        assert canonical(known) == known


@given(names)
def test_reading_never_fails_and_never_leaves_the_folder(text: str) -> None:
    ref = read(text)
    if ref is not None:
        assert ".." not in ref.file.path.split("/")
        assert not ref.file.path.startswith("/")


def test_only_flagged_inputs_and_annotated_texts_name_files() -> None:
    document = prompt(
        a=("LoadImage", {"image": "a.png", "upload": "image"}),
        b=("CLIPTextEncode", {"text": "a.png", "clip": ["a", 0]}),
        c=("LoadVideo", {"file": "v.mp4 [input]"}),
        d=("SomebodysNode", {"path": "x.png [output]", "n": 3, "on": True, "none": None}),
        e=("LoadImage", {"image": "a.png"}),
    )
    assert texts(document) == ["a.png", "v.mp4 [input]", "x.png [output]"]


def test_lists_wrapped_lists_and_objects_are_looked_through_but_links_are_not() -> None:
    document = prompt(
        a=("LoadImage", {"image": ["b", 0]}),
        b=("LoadImageSetNode", {"images": {"__value__": ["1.png", "2.png [output]"]}}),
        c=("LoadImageSetNode", {"images": ["3.png", "4.png"]}),
        d=("Load3D", {"image": {"image": "threed/s.png [temp]", "recording": "", "camera_info": {"fov": 3}}}),
        e=("Show", {"list": ["5.png [output]"]}),
    )
    assert texts(document) == [
        "1.png", "2.png [output]", "3.png", "4.png", "threed/s.png [temp]"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": None},
        {"prompt": ["x"]},
        {"prompt": {"1": None}},
        {"prompt": {"1": {"class_type": 3, "inputs": {"image": "a.png"}}}},
        {"prompt": {"1": {"class_type": "LoadImage"}}},
        {"prompt": {"1": {"class_type": "LoadImage", "inputs": ["a.png"]}}},
    ],
)
def test_a_body_of_another_shape_names_nothing_and_stays_as_it_is(document: dict[str, Any]) -> None:
    assert refs_in(document, upload_inputs) == ()
    assert with_refs(document, upload_inputs, lambda ref: "other") is document


def test_a_body_in_which_nothing_changes_is_the_same_object() -> None:
    document = prompt(
        a=("LoadImage", {"image": "a.png"}), b=("LoadImageSetNode", {"images": ["1.png", "2.png"]})
    )
    assert with_refs(document, upload_inputs, lambda ref: None) is document
    assert (
        with_refs(document, upload_inputs, lambda ref: written(ref.file, is_annotated=ref.is_annotated))
        == document
    )


def test_only_what_is_renamed_changes_and_the_given_body_does_not() -> None:
    document = prompt(
        a=("LoadImage", {"image": "a.png", "upload": "image"}),
        b=("LoadImageSetNode", {"images": {"__value__": ["1.png", "a.png"]}}),
        c=("Note", {"text": "a.png"}),
    )
    before = repr(document)
    after = with_refs(
        document, upload_inputs, lambda ref: "a (1).png" if ref.file.filename == "a.png" else None
    )
    assert after == prompt(
        a=("LoadImage", {"image": "a (1).png", "upload": "image"}),
        b=("LoadImageSetNode", {"images": {"__value__": ["1.png", "a (1).png"]}}),
        c=("Note", {"text": "a.png"}),
    )
    assert repr(document) == before
    assert after["prompt"]["c"] is document["prompt"]["c"]


def test_a_prompt_of_ten_megabytes_is_walked_quickly() -> None:
    graph = {
        str(number): {
            "class_type": "LoadImage" if number % 10 == 0 else "KSampler",
            "inputs": {"image": f"{number}.png", "text": "word " * 30, "model": ["4", 0], "seed": number},
        }
        for number in range(40_000)
    }
    graph["big"] = {"class_type": "Mask", "inputs": {"points": list(range(500_000)), "text": "x" * 2_000_000}}
    began_s = time.perf_counter()
    assert len(refs_in({"prompt": graph}, upload_inputs)) == 4000
    assert time.perf_counter() - began_s < 2  # a tenth of it, on a quiet machine


def test_the_names_after_a_clash_are_those_that_comfyui_gives() -> None:
    tried = numbered(FileName("a.b.png", "sub", "input"))
    assert [next(tried).path for _ in range(3)] == ["sub/a.b.png", "sub/a.b (1).png", "sub/a.b (2).png"]
    assert [name.filename for name, _ in zip(numbered(FileName("noending")), "12", strict=False)] == [
        "noending",
        "noending (1)",
    ]


def test_names_that_may_lead_out_of_their_folder_are_found() -> None:
    inputs = {
        "image": "../output/a.png",
        "plain": "../output/a.png",
        "text": "x/../b.png [output]",
        "list": {"__value__": ["/etc/x.png", "fine.png", ["2", 0]]},
        "link": ["1", 0],
        "empty": " ",
        "number": 3,
    }
    document = {
        "prompt": {
            "1": {"class_type": "LoadImage", "inputs": inputs},
            "2": {"class_type": 7, "inputs": {"image": "/x [temp]"}},
            "3": {"class_type": "LoadImage"},
            "4": "nothing",
        }
    }
    found = list(strays_in(document, lambda _class: {"image", "list", "empty"}))
    assert found == ["../output/a.png", "x/../b.png [output]", "/etc/x.png", "/x [temp]"]
    assert list(strays_in({}, lambda _class: ())) == []


@pytest.mark.parametrize("name", ["a.png", "a (x).png", "(1).png", "a(1).png", "a", "a (1) b.png", ".png"])
def test_names_that_may_clash_have_one_beginning(name: str) -> None:
    names = list(islice(numbered(FileName(name, "s", "temp")), 12))
    assert {first_of_numbered(file) for file in names} == {FileName(name, "s", "temp")}
    assert first_of_numbered(FileName("a (1) (2).png")) == FileName("a.png")


@pytest.mark.parametrize(
    ("value", "is_like_one"),
    [
        ("a.png", True),
        ("sub/a.b.JPEG [input]", True),
        ({"__value__": ["a.webp"]}, True),
        ("a.png ", True),
        ("ComfyUI", False),
        ("a cat. It sits", False),
        (["4", 0], False),
        (3.5, False),
    ],
)
def test_what_looks_like_a_file_is_found_in_any_node(value: Any, is_like_one: bool) -> None:
    prompt = {"1": {"class_type": "Any", "inputs": {"x": 1, "y": value}}, "2": {"inputs": None}, "3": None}
    assert may_name_files({"prompt": prompt}) is is_like_one
    assert not may_name_files({})
