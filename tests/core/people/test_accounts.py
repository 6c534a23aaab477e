"""The file of people who sign in by tokens."""

from typing import Any

import pytest

from comfy_gateway.core.people.accounts import (
    MAX_TOKEN_LENGTH,
    Account,
    Accounts,
    AccountsUnreadable,
    key_id_of,
    token_of,
)
from comfy_gateway.core.people.roles import Role

ALICE = Account("alice", "abcd2345", "$argon2id$a", Role.OPERATOR)
BOB = Account("bob@example.com", "bcde3456", "$argon2id$b")


def test_what_is_written_is_what_is_read() -> None:
    accounts = Accounts.parse(Accounts.of([ALICE, BOB]).document())
    assert accounts.by_name == {"alice": ALICE, "bob@example.com": BOB}
    assert accounts.by_key_id == {"abcd2345": ALICE, "bcde3456": BOB}


@pytest.mark.parametrize("document", [None, {}, {"users": None}, {"users": {}}])
def test_an_empty_file_is_nobody(document: Any) -> None:
    assert Accounts.parse(document) == Accounts()


GOOD = {"id": "abcd2345", "hash": "$argon2id$SECRET"}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "must be a mapping"),
        ({"users": []}, "must be a mapping"),
        ({"users": {1: GOOD}}, "1 is no name"),
        ({"users": {" a": GOOD}}, "' a' is no name"),
        ({"users": {"a\nb": GOOD}}, "is no name"),
        ({"users": {"a": "x"}}, "'a' must be a mapping"),
        ({"users": {"a": {"hash": "$argon2id$SECRET"}}}, "the 'id' of 'a'"),
        ({"users": {"a": {**GOOD, "id": 12345678}}}, "the 'id' of 'a'"),
        ({"users": {"a": {**GOOD, "id": "ABCD2345"}}}, "the 'id' of 'a'"),
        ({"users": {"a": {**GOOD, "hash": "SECRET in plain"}}}, "the 'hash' of 'a'"),
        ({"users": {"a": {**GOOD, "role": "root"}}}, "the 'role' of 'a'"),
        ({"users": {"a": GOOD, "b": GOOD}}, "'b' has the id of another"),
    ],
)
def test_a_wrong_file_is_refused_without_telling_a_hash(document: Any, why: str) -> None:
    with pytest.raises(AccountsUnreadable) as caught:
        Accounts.parse(document)
    assert why in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_name_may_not_be_there_twice() -> None:
    with pytest.raises(AccountsUnreadable, match="twice"):
        Accounts.of([ALICE, Account("alice", "other234", "$argon2id$")])


def test_a_token_says_whose_it_is() -> None:
    token = token_of("abcd2345", "x" * 43)
    assert key_id_of(token) == "abcd2345"


@pytest.mark.parametrize(
    "token",
    ["", "cgw_", "cgw_abcd2345_short", "cgw_ABCD2345_" + "x" * 43, "x" * 43, "cgw_abcd2345_" + "x" * 42 + "!",
     "cgw_abcd2345_" + "x" * MAX_TOKEN_LENGTH, "cgw_abcd2345_" + "x" * 43 + "\n"],
)  # fmt: skip
def test_other_text_is_no_token(token: str) -> None:
    assert key_id_of(token) is None


def test_a_hash_is_not_shown_in_a_repr() -> None:
    assert "argon2" not in repr(ALICE)
