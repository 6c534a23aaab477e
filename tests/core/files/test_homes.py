"""Names in a user's home on a shared server."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.files.homes import HOMES, Home, asked
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId

KEYS = Keys(b"k" * 32)
HOME = Home.of(KEYS, UserId(IdKind.NAMED, "alice"))


def read_by_comfyui(written: str) -> str:
    """What ComfyUI makes of a name that aiohttp has decoded (``get_request_user_filepath``)."""
    return unquote(written) if "%" in written else written


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("workflows/a.json", "workflows/a.json"),
        ("workflows%2Fa b.json", "workflows/a b.json"),
        ("workflows/", "workflows"),
        ("./a//b", "a/b"),
        ("100%.json", "100%.json"),
        ("a%2525b", "a%25b"),
        ("ü/日.json", "ü/日.json"),
        ("", ""),
    ],
)
def test_a_name_is_in_the_home_as_comfyui_reads_it(name: str, inside: str) -> None:
    path = HOME.path_of(name)
    assert path == (f"{HOME.folder}/{inside}" if inside else HOME.folder)
    assert read_by_comfyui(asked(path)) == path
    assert HOME.shown(path) == (inside or HOME.folder)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "..%2fx",
        "/etc/x",
        "%2Fetc",
        "a\\..\\x",
        "a\x00",
        "%00",
        "%ff",
        "\ud800",
    ],
)
def test_no_name_leads_out_of_the_home(name: str) -> None:
    assert HOME.path_of(name) is None


@given(st.text(st.sampled_from("./%25eE2fF\\a \x00"), max_size=20))
def test_whatever_is_asked_for_comfyui_opens_something_in_the_home_or_nothing(name: str) -> None:
    path = HOME.path_of(name)
    if path is not None:
        once = unquote(quote(asked(path), safe=""))
        opened = read_by_comfyui(once)
        assert opened == path
        assert ".." not in opened.split("/")
        assert (opened + "/").startswith(HOME.folder + "/")


def test_each_has_one_home_and_those_without_a_name_have_one_together() -> None:
    bob = Home.of(KEYS, UserId(IdKind.NAMED, "bob"))
    assert len({HOME.folder, bob.folder, Home.of(KEYS, None).folder}) == 3
    assert HOME.folder.startswith(f"{HOMES}/user-")


def test_what_the_server_tells_is_shown_by_the_users_names() -> None:
    told = [{"name": "a", "path": f"{HOME.folder}/w/a", "size": 1}, f"{HOME.folder}\\b", 3, {"x": 1}]
    assert HOME.shown(told) == [{"name": "a", "path": "w/a", "size": 1}, "b", 3, {"x": 1}]
