"""Secrets that are derived instead of stored."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId

MASTER = bytes(range(32))
KEYS = Keys(MASTER)
ALICE = UserId(IdKind.NAMED, "alice")


def test_the_same_master_secret_finds_the_same_values_again() -> None:
    again = Keys(MASTER)
    assert again.pod_token("p") == KEYS.pod_token("p")
    assert again.agent_token("p") == KEYS.agent_token("p")
    assert again.upstream_sid(ALICE, "s") == KEYS.upstream_sid(ALICE, "s")
    assert again.cookie_key() == KEYS.cookie_key()
    assert again.slug_suffix(ALICE) == KEYS.slug_suffix(ALICE)


def test_another_master_secret_finds_other_values() -> None:
    other = Keys(MASTER[::-1])
    assert other.pod_token("p") != KEYS.pod_token("p")
    assert other.cookie_key() != KEYS.cookie_key()


def test_no_two_purposes_share_a_value() -> None:
    values = [KEYS.pod_token("x"), KEYS.agent_token("x"), KEYS.cookie_key(), KEYS.pod_token("y")]
    assert len(set(values)) == len(values)


def test_values_have_the_promised_shape() -> None:
    for value, digits in [
        (KEYS.pod_token("p"), 64),
        (KEYS.agent_token("p"), 64),
        (KEYS.upstream_sid(ALICE, "s"), 32),
        (KEYS.slug_suffix(ALICE), 8),
    ]:
        assert re.fullmatch(rf"[0-9a-f]{{{digits}}}", value)


def test_equal_socket_ids_of_two_users_differ_upstream() -> None:
    assert KEYS.upstream_sid(ALICE, "s") != KEYS.upstream_sid(UserId(IdKind.NAMED, "bob"), "s")
    assert KEYS.upstream_sid(ALICE, "s") != KEYS.upstream_sid(UserId(IdKind.CLIENT, "alice"), "s")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_where_one_part_ends_and_the_next_begins_counts(name: str, sid: str) -> None:
    moved = UserId(IdKind.NAMED, name + sid[0])
    assert KEYS.upstream_sid(UserId(IdKind.NAMED, name), sid) != KEYS.upstream_sid(moved, sid[1:])


def test_a_socket_id_that_is_no_proper_text_has_a_value_too() -> None:
    assert KEYS.upstream_sid(ALICE, "\udcff") != KEYS.upstream_sid(ALICE, "\udcfe")


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_master_secret_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Keys(bytes(length))


def test_the_master_secret_is_not_shown() -> None:
    assert "master" not in repr(Keys(b"x" * 32))
