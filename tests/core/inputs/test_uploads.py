"""Whose upload it is, and which server it lies on."""

import pytest

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.uploads import Content, Copy, best_name, carried_file, owner_keys, place_of
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream

ALICE = UserId(IdKind.NAMED, "alice")


@pytest.mark.parametrize(
    ("user", "peer", "expected"),
    [
        (ALICE, "10.0.0.1", ("named:alice", "address:10.0.0.1")),
        (ALICE, "", ("named:alice",)),
        (None, "10.0.0.1", ("address:10.0.0.1",)),
        (None, "::ffff:10.0.0.1", ("address:10.0.0.1",)),
        (None, "", ("address:unknown",)),
        (UserId(IdKind.ADDRESS, "10.0.0.1"), "10.0.0.1", ("address:10.0.0.1",)),
        (UserId(IdKind.ADDRESS, "10.0.0.1"), "10.0.0.2", ("address:10.0.0.1",)),
    ],
)
def test_what_came_without_a_name_belongs_to_its_address(
    user: UserId | None, peer: str, expected: tuple[str, ...]
) -> None:
    assert owner_keys(user, peer) == expected


def test_a_duty_server_is_known_by_its_address_and_a_pod_by_its_name() -> None:
    upstream = Upstream.parse("https://gpu.example:8443/comfy")
    assert place_of(Backend("duty-0", Source.DUTY, upstream)) == place_of(
        Backend("duty-1", Source.DUTY, upstream)
    )
    assert place_of(Backend("comfy-gw-alice-k3", Source.PRIVATE, upstream)) == "comfy-gw-alice-k3"


A = Content("a" * 64, 1)


def at(path: str, folder: str = "input") -> Copy:
    subfolder, _, filename = path.rpartition("/")
    return Copy("pod", FileName(filename, subfolder, folder), A)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.png", "a (1).png", "a.png"], "a.png"),
        (["b.png", "a (12).png", "a (1).png"], "a (12).png"),
        (["b.png", "sub/a.png", "sub/a (1).png", "a (x).png", "a (1).jpg", "aa (1).png"], None),
        ([f"carried/{'a' * 32}/file.png"], f"carried/{'a' * 32}/file.png"),
        ([f"carried/{'b' * 32}/file.png"], None),
        ([], None),
    ],
)
def test_a_content_is_used_under_its_own_name_or_one_made_of_it(
    names: list[str], expected: str | None
) -> None:
    found = best_name([at(name) for name in names], FileName("a.png", "", "input"))
    assert (found.path if found else None) == expected


def test_a_name_in_another_folder_is_another_file() -> None:
    assert best_name([at("a.png", "temp"), at("a (1).png", "output")], FileName("a.png", "", "input")) is None


def test_what_was_no_input_gets_a_name_that_no_other_content_has() -> None:
    assert carried_file(A, "x.png") == FileName("x.png", f"carried/{'a' * 32}", "input")
