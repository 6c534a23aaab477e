"""Which pods are ours, and that names made are names recognised."""

from datetime import UTC, datetime, timedelta

import pytest

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.pods.podname import MAX_NAME_LENGTH, PodNames, new_attempt

KEYS = Keys(bytes(range(32)))
ALICE = UserId(IdKind.NAMED, "alice")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def names() -> PodNames:
    return PodNames("comfy-gw", KEYS)


@pytest.mark.parametrize(
    "name", ["alice", "Alice B. O'Hara <a@b.c>", "!!!", "a-b-c", "x" * 128, '"}){ id } evil', "-"]
)
def test_every_user_gets_a_name_that_is_ours_and_safe(names: PodNames, name: str) -> None:
    made = names.make(UserId(IdKind.NAMED, name), new_attempt(NOW))
    assert names.is_ours(made)
    assert len(made) <= MAX_NAME_LENGTH
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_the_name_shows_the_user_readably(names: PodNames) -> None:
    assert names.make(UserId(IdKind.NAMED, "Alice Smith"), "a1").startswith("comfy-gw-alicesmith")


@pytest.mark.parametrize(
    "other",
    [
        UserId(IdKind.NAMED, "ALICE"),
        UserId(IdKind.NAMED, "al-ice"),
        UserId(IdKind.CLIENT, "alice"),
        UserId(IdKind.BROWSER, "alice"),
    ],
    ids=["case", "punctuation", "client id", "browser"],
)
def test_users_with_the_same_letters_get_different_names(names: PodNames, other: UserId) -> None:
    assert names.make(ALICE, "a1") != names.make(other, "a1")


def test_the_name_of_an_attempt_is_the_same_after_a_restart(names: PodNames) -> None:
    assert names.make(ALICE, "a1") == PodNames("comfy-gw", KEYS).make(ALICE, "a1")


@pytest.mark.parametrize(
    "name",
    [
        "comfy-gwx-a-b",
        "comfy-gw-eu-a-b",
        "comfy-gw-a",
        "comfy-gw-a-",
        "comfy-gw--a",
        "comfy-gw-a-b-c",
        "comfy-gw-a-b\n",
        "comfy-gw-A-b",
        "comfy-gw-ä-b",
        "comfy-gw-²-b",
        "xcomfy-gw-a-b",
        " comfy-gw-a-b",
        "comfy-g-w-a-b",
        "comfy-gw",
        "",
        "comfy-gw-a-" + "b" * MAX_NAME_LENGTH,
    ],
)
def test_a_name_of_any_other_shape_is_never_ours(names: PodNames, name: str) -> None:
    assert not names.is_ours(name)


@pytest.mark.parametrize("other", ["comfy", "comfy-gw-eu", "comfy-gwx", "gw"])
def test_gateways_with_related_tags_leave_each_other_alone(names: PodNames, other: str) -> None:
    others = PodNames(other, KEYS)
    assert not names.is_ours(others.make(ALICE, "a1"))
    assert not others.is_ours(names.make(ALICE, "a1"))


@pytest.mark.parametrize(
    "tag", ["", "-", "comfy_gw", "Comfy", "comfy-", "-comfy", "a--b", "a.b", "a b", "x" * 65, "a\n"]
)
def test_a_tag_that_cannot_be_told_apart_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        PodNames(tag, KEYS)


@pytest.mark.parametrize("attempt", ["", "a-b", "A", "a\n", "a b", '"', "x" * 65])
def test_an_attempt_that_would_change_the_shape_is_refused(names: PodNames, attempt: str) -> None:
    with pytest.raises(ValueError, match="attempt"):
        names.make(ALICE, attempt)


def test_the_longest_name_fits_the_clouds_bound() -> None:
    names = PodNames("t" * 64, KEYS)
    made = names.make(UserId(IdKind.NAMED, "x" * 128), "a" * 64)
    assert len(made) <= MAX_NAME_LENGTH
    assert names.is_ours(made)


def test_later_attempts_sort_later() -> None:
    first = datetime(1971, 1, 1, tzinfo=UTC)
    steps = [0, 0.001, 1, 36**5, 40 * 365 * 86400, 1000 * 365 * 86400]
    attempts = [new_attempt(first + timedelta(seconds=step), choose=lambda text: text[-1]) for step in steps]
    assert attempts == sorted(attempts)
    assert len({len(attempt) for attempt in attempts}) == 1


def test_attempts_of_the_same_moment_differ_by_the_random_digits() -> None:
    low, high = new_attempt(NOW, lambda text: text[0]), new_attempt(NOW, lambda text: text[-1])
    assert (low[:-4], low[-4:]) == (high[:-4], "0000")
    assert high.endswith("zzzz")
    assert len({new_attempt(NOW) for _ in range(50)}) > 40
