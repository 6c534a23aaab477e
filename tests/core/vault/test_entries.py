"""Entries with the files that still open."""

from typing import Any

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.entries import pod_files_in, with_files
from comfy_gateway.core.vault.vault import Address


def file(filename: str, subfolder: str = "private-a1", **more: Any) -> dict[str, Any]:
    return {"filename": filename, "subfolder": subfolder, "type": "output"} | more


ENTRY = {
    "prompt": [1, "p1", {}, {}, []],
    "outputs": {
        "9": {"images": [file("a.png"), file("b.png", format="x")], "animated": [False]},
        "10": {"video": file("c.mp4"), "text": ["said"]},
        "11": {"images": [file("duty.png", ""), file("other.png", "server-0a1b2c3d")]},
    },
    "status": {"status_str": "success"},
}


def test_files_of_pods_are_found_and_those_of_other_servers_are_not() -> None:
    assert [(name.filename, address) for name, address in pod_files_in(ENTRY)] == [
        ("a.png", Address("private-a1", FileName("a.png"))),
        ("b.png", Address("private-a1", FileName("b.png"))),
        ("c.mp4", Address("private-a1", FileName("c.mp4"))),
    ]


def test_each_file_is_shown_as_decided_and_all_else_stays() -> None:
    names = {
        "a.png": None,
        "b.png": FileName("b.png", "private-a1@1"),
        "c.mp4": None,
    }
    told = with_files(ENTRY, lambda name: names.get(name.filename, name))
    assert told == ENTRY | {
        "outputs": {
            "9": {"images": [file("b.png", "private-a1@1", format="x")], "animated": [False]},
            "10": {"text": ["said"]},
            "11": {"images": [file("duty.png", ""), file("other.png", "server-0a1b2c3d")]},
        }
    }
    assert ENTRY["outputs"]["9"]["images"][0] == file("a.png")  # type: ignore[index]


def test_an_entry_of_another_shape_is_left_as_it_is() -> None:
    assert list(pod_files_in({})) == []
    assert with_files({"outputs": None}, lambda _: None) == {"outputs": None}
