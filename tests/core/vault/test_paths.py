"""Paths of kept files."""

from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.paths import PodPaths

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALICE = "named:alice"


def paths(user_key: str = ALICE) -> PodPaths:
    return PodPaths(user_key, "private-a1")


def test_a_path_says_who_when_where_and_what() -> None:
    path = paths().choose(FileName("ComfyUI_00001_.png", "portraits/old"), NOON)
    folder, rest = path.split("/", 1)
    assert folder.startswith("named-alice-")
    assert rest == "2026-11-23/private-a1/portraits/old/ComfyUI_00001_.png"


def test_outputs_and_temporary_files_of_one_name_are_two_files() -> None:
    here = paths()
    names = [FileName("a.png"), FileName("a.png", "", "temp")]
    assert len({here.choose(name, NOON) for name in names}) == 2


@pytest.mark.parametrize(
    ("one", "other"), [("named:alice", "named:Alice"), ("named:a/b", "named:a-b"), ("client:x", "named:x")]
)
def test_two_users_never_share_a_folder(one: str, other: str) -> None:
    folders = {paths(user).choose(FileName("a.png"), NOON).split("/")[0].casefold() for user in (one, other)}
    assert len(folders) == 2


def test_a_further_content_of_a_name_and_one_that_differs_in_case_get_numbers() -> None:
    here = paths()
    chosen = [here.choose(FileName(name), NOON).rpartition("/")[2] for name in ("a.png", "a.png", "A.PNG")]
    assert chosen == ["a.png", "a~2.png", "A~3.PNG"]


def test_a_path_that_was_given_back_is_free_again() -> None:
    here = paths()
    path = here.choose(FileName("a.png"), NOON)
    here.give_back(path)
    assert here.choose(FileName("a.png"), NOON) == path


def test_paths_of_an_earlier_life_are_taken() -> None:
    path = paths().choose(FileName("a.png"), NOON)
    assert PodPaths(ALICE, "private-a1", [path]).choose(FileName("a.png"), NOON) != path


def test_a_file_in_the_place_of_a_folder_is_walked_around() -> None:
    here = paths()
    file = here.choose(FileName("a", ""), NOON)
    below = here.choose(FileName("b.png", "A/c"), NOON)
    assert not below.casefold().startswith(file.casefold() + "/")
    folder = here.choose(FileName("x.png", "d"), NOON).rpartition("/")[0]
    assert here.choose(FileName("d"), NOON) != folder


@pytest.mark.parametrize(
    "name", ["CON.", ".hidden", "a:b.png", "a~b.png", "e\u0301.png", "x" * 300, "ä" * 200 + ".png", "..."]
)
def test_a_name_that_not_every_disk_takes_becomes_one_that_does(name: str) -> None:
    chosen = paths().choose(FileName(name), NOON).rpartition("/")[2]
    assert chosen != name
    assert "~" in chosen
    assert len(chosen.encode()) <= 200


def test_folders_without_end_become_one() -> None:
    path = paths().choose(FileName("a.png", "/".join("abcdefghijklmnopqrstuvwxyz")), NOON)
    assert len(PurePosixPath(path).parts) == 5


_anything = st.text(st.characters(codec=None), max_size=300)


@given(st.lists(st.tuples(_anything, _anything), min_size=1, max_size=12), _anything)
def test_no_name_leads_out_or_takes_the_place_of_another(names: list[tuple[str, str]], user_key: str) -> None:
    here = paths(user_key)
    chosen = [PurePosixPath(here.choose(FileName(name, folder), NOON)) for name, folder in names]
    for path in chosen:
        assert not path.is_absolute()
        assert path.parts[1:2] == ("2026-11-23",)
        assert path.parts[2].partition("~")[0] == "private-a1"
        assert not {"", ".", ".."} & set(path.parts)
        assert all(part.isprintable() and len(part.encode()) <= 255 for part in path.parts)
        assert not any(part.startswith(".") or part.endswith((".", " ")) for part in path.parts)
    folded = [str(path).casefold() for path in chosen]
    assert len(set(folded)) == len(folded)
    assert not any(one.startswith(other + "/") for one in folded for other in folded)
