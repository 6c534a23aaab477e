"""Names of users, and the keys that the store keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.people.users import MAX_NAME_LENGTH, IdKind, UserId, is_valid_name


@given(st.sampled_from(IdKind), st.text(max_size=40))
def test_a_key_leads_back_to_its_user(kind: IdKind, name: str) -> None:
    user = UserId(kind, name)
    assert UserId.from_key(user.key) == user


def test_users_of_different_kinds_are_different_whatever_their_name() -> None:
    users = {UserId(kind, "alice") for kind in IdKind}
    assert len(users) == len(IdKind)
    assert len({user.key for user in users}) == len(IdKind)


@pytest.mark.parametrize("key", ["", "alice", "nobody:alice", "NAMED:alice"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"no user key|not a valid IdKind"):
        UserId.from_key(key)


@pytest.mark.parametrize(
    "name", ["a", "alice", "Alice B. <a@b.c>", "x" * MAX_NAME_LENGTH, "~!", "a:b", "'\"\\"]
)
def test_printable_ascii_is_a_name(name: str) -> None:
    assert is_valid_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "x" * (MAX_NAME_LENGTH + 1),
        "ä",
        "a\n",
        "a\tb",
        "a\x00",
        "a\x7f",
        "\u202e",
        "\ud800",
    ],
    ids=ascii,
)
def test_anything_else_is_none(name: str) -> None:
    assert not is_valid_name(name)
