"""No name of a manifest leads out of the base folder."""

from pathlib import Path

import pytest

from model_sync import names
from model_sync.errors import UnsafePath

REFUSED = [
    "",
    "/etc/passwd",
    "//host/share/x",
    "~/x",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "./x",
    "a//b",
    "a/",
    "a/./b",
    "a\\b",
    "..\\x",
    "C:/x",
    "c:x",
    "a/b:stream",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a/con",
    "CON",
    "nul.safetensors",
    "a/COM1.pt",
    "lpt9",
    "com¹",
    "prn .x",
    "a/x.",
    "a/x ",
    " a/x",
    "a/ /x",
    "a*b",
    "a?b",
    'a"b',
    "a|b",
    "<huggingface>",
    "a/\u202efdp.exe",
    "a/\u200bx",
    "a/\ud800",
    "a/" + "x" * 250,
    ".model_sync/placed/x.json",
    ".MODEL_SYNC/x",
    "a/x.part",
    "a/x.part.json",
]
ACCEPTED = [
    "checkpoints/v1-5-pruned-emaonly.safetensors",
    "x.pth",
    "loras/SDXL/ein schöner Name (v2) [fp16], 100%.safetensors",
    "loras/模型.safetensors",
    "a/..b/...c/x",
    "console/nullable.pt",
    "a/.hidden",
    "a/com10.pt",
]


@pytest.mark.parametrize("path", REFUSED, ids=ascii)
def test_a_name_that_leaves_the_folder_or_is_no_file_somewhere_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafePath):
        names.checked(path)
    with pytest.raises(UnsafePath):
        names.below(tmp_path, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ACCEPTED, ids=ascii)
def test_an_honest_name_is_kept_as_it_is(path: str, tmp_path: Path) -> None:
    assert names.below(tmp_path.resolve(), path) == tmp_path.resolve() / path


@pytest.mark.parametrize("path", ["out/x.pt", "out/new/x.pt", "file.pt", "in/../out/x.pt"])
def test_a_symbolic_link_out_of_the_folder_is_not_followed(path: str, tmp_path: Path) -> None:
    base, outside = tmp_path / "base", tmp_path / "outside"
    for folder in (base, outside, base / "in"):
        folder.mkdir()
    (base / "out").symlink_to(outside)
    (base / "file.pt").symlink_to(outside / "secret")
    with pytest.raises(UnsafePath):
        names.below(base, path)
    with pytest.raises(UnsafePath):
        names.inside(base, path)
    assert list(outside.iterdir()) == []


def test_a_symbolic_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "lycoris").symlink_to("loras")
    assert names.below(tmp_path.resolve(), "lycoris/x.pt").parent.resolve() == tmp_path.resolve() / "loras"


def test_letter_case_and_composed_letters_make_no_other_file() -> None:
    assert names.same_file_key("LoRAs/Sch\u00f6n.pt") == names.same_file_key("loras/scho\u0308n.pt")
