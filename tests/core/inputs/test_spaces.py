"""What a user's inputs are called on a shared server, and what is seen of that."""

import json

import pytest

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.lists import EVERYTHING, with_files
from comfy_gateway.core.inputs.spaces import (
    EVERYBODYS,
    PLAIN,
    InputSpace,
    InputSpaces,
    is_within,
    names_space,
)
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream

KEYS = Keys(b"k" * 32)
ALICE, BOB = UserId(IdKind.NAMED, "alice"), UserId(IdKind.NAMED, "bob")
SPACES = InputSpaces(KEYS, "shared")
OWN = SPACES.own(ALICE)
NS, FOREIGN = OWN.folder, SPACES.own(BOB).folder
DUTY = Backend("duty-0", Source.DUTY, Upstream.parse("http://127.0.0.1:1"))
POD = Backend("gw-alice-1", Source.PRIVATE, Upstream.parse("http://127.0.0.1:2"))


@pytest.mark.parametrize(
    ("subfolder", "kind", "there"),
    [
        ("", "input", NS),
        ("clipspace", "input", f"{NS}/clipspace"),
        ("3d", "input", f"3d/{NS}"),
        ("3d/a", "input", f"3d/{NS}/a"),
        ("3d", "temp", f"{NS}/3d"),
        ("threed", "temp", f"{NS}/threed"),
        ("shared", "input", "shared"),
        ("shared/a", "input", "shared/a"),
        ("shared", "output", f"{NS}/shared"),
        ("shared2", "input", f"{NS}/shared2"),
        (FOREIGN, "input", f"{NS}/{FOREIGN}"),
        (f"3d/{FOREIGN}", "input", f"3d/{NS}/{FOREIGN}"),
    ],
)
def test_every_name_is_put_into_ones_own_folder_and_taken_out_again(
    subfolder: str, kind: str, there: str
) -> None:
    file = FileName("x.png", subfolder, kind)
    assert OWN.there(file) == FileName("x.png", there, kind)
    assert OWN.plain(OWN.there(file)) == file
    assert PLAIN.there(file) == PLAIN.plain(file) == file
    assert OWN.plain(FileName("x.png", f"{FOREIGN}/a", kind)) == FileName("x.png", f"{FOREIGN}/a", kind)


def test_each_has_one_folder_that_nobody_guesses_and_that_stays_the_same() -> None:
    nobody = SPACES.own(None).folder
    assert len({NS, FOREIGN, nobody, InputSpaces(Keys(b"j" * 32)).own(ALICE).folder}) == 4
    assert all(names_space(one) and len(one) == 31 for one in (NS, FOREIGN, nobody))
    assert InputSpaces(KEYS).own(ALICE).folder == NS


def test_names_on_a_pod_and_without_isolation_stay_as_they_are() -> None:
    assert SPACES.on(DUTY, ALICE) == OWN
    assert SPACES.on(POD, ALICE) == EVERYBODYS.own(ALICE) == EVERYBODYS.on(DUTY, ALICE) == PLAIN


def test_an_address_says_nothing_where_people_are_kept_apart() -> None:
    assert SPACES.owners(ALICE, "10.0.0.1") == (ALICE.key,)
    assert SPACES.owners(None, "10.0.0.1") == SPACES.owners(None, "10.0.0.2")
    assert EVERYBODYS.owners(ALICE, "10.0.0.1")[1:] != ()


def test_only_inputs_in_the_shared_folder_are_shared() -> None:
    assert SPACES.is_shared(FileName("x", "shared/a", "input"))
    assert not EVERYBODYS.is_shared(FileName("x", "shared", "input"))
    assert not is_within(FileName("x", "", "input"), "")


def test_what_a_server_tells_shows_the_users_own_names_and_nothing_of_others() -> None:
    told = {
        "error": f"Invalid image file: {NS}/a.png",
        "file": {"filename": "a.png", "subfolder": NS, "type": "input"},
        "deep": {"filename": "a.glb", "subfolder": f"3d/{NS}", "type": "input"},
        "path": f"C:\\input\\{NS}\\a.png",
        "list": f"x: '3d/{NS}/y.glb' not in ['3d/{FOREIGN}/secret one.glb', \"3d/{FOREIGN}/it's.glb\", 'none']",
        "lines": f"1 {FOREIGN}/secret\n2",
        "plain": "user-friendly",
    }
    shown = json.loads(OWN.shown(json.dumps(told).encode()))
    assert shown == {
        "error": "Invalid image file: a.png",
        "file": {"filename": "a.png", "subfolder": "", "type": "input"},
        "deep": {"filename": "a.glb", "subfolder": "3d", "type": "input"},
        "path": "C:\\input\\a.png",
        "list": "x: '3d/y.glb' not in ['3d/...', \"3d/...\", 'none']",
        "lines": "1 ...\n2",
        "plain": "user-friendly",
    }
    untouched = f'"{FOREIGN}/a"'.encode()
    assert PLAIN.shown(untouched) is untouched


def test_lists_hold_ones_own_and_shared_files_alone_and_no_folder_of_a_user() -> None:
    info = {
        "LoadImage": {"input": {"required": {"image": [["old.png"], {"image_upload": True}]}}},
        "Load3D": {"input": {"required": {"model": [[f"3d/{FOREIGN}/a.glb"], {"file_upload": True}]}}},
        "Folders": {
            "input": {
                "required": {"folder": [["sets", NS, FOREIGN], {"tooltip": "x"}]},
                "optional": {"other": ["COMBO", {"options": ["sets", FOREIGN]}], "size": ["INT"], "odd": "x"},
                "hidden": None,
            }
        },
        "Odd": "x",
    }
    names = {"a.png", "3d/mine.glb", "sub/b.png", "shared/c.png", "d.txt"}
    told = with_files(info, names, EVERYTHING, shared="shared", hides_spaces=True)
    assert told["LoadImage"]["input"]["required"]["image"][0] == ["a.png", "shared/c.png"]
    assert told["Load3D"]["input"]["required"]["model"][0] == ["3d/mine.glb"]
    folders = told["Folders"]["input"]
    assert folders["required"]["folder"] == [["sets"], {"tooltip": "x"}]
    assert folders["optional"] == {
        "other": ["COMBO", {"options": ["sets"]}],
        "size": ["INT"],
        "odd": "x",
    }
    assert (folders["hidden"], told["Odd"]) == (None, "x")
    assert not names_space(json.dumps(told))


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [(NS, False), (f"x/{FOREIGN}/y", True), (f"{NS} {FOREIGN}", True), ("user-friendly", False), (7, False)],
)
def test_a_prompt_that_names_the_folder_of_another_is_found_out(text: object, is_foreign: bool) -> None:
    prompt = {"1": {"class_type": "X", "inputs": {"a": ["2", 0], "b": {"c": [text]}}}}
    assert OWN.names_another(prompt) is is_foreign
    assert not PLAIN.names_another(prompt)


def test_a_space_without_a_shared_folder_has_everything_in_it() -> None:
    assert InputSpace(NS).there(FileName("x.png", "shared", "input")).subfolder == f"{NS}/shared"
