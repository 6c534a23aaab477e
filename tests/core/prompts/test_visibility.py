"""Who sees and touches what, by how far people are kept apart."""

import pytest

from comfy_gateway.core.prompts.visibility import OPEN, UNCLAIMED, Isolation, Owner, Visibility, is_own
from comfy_gateway.core.requests.upstream import Source

ALICE, BOB = "named:alice", "named:bob"
ACTIONS = Visibility(Isolation.ACTIONS)
FULL = Visibility(Isolation.FULL)
SIGNED_IN = Visibility(Isolation.FULL, has_sign_in=True)
DUTY, POD, KEPT = Source.DUTY, Source.PRIVATE, Source.GATEWAY


@pytest.mark.parametrize("visibility", [OPEN, ACTIONS, FULL, SIGNED_IN])
@pytest.mark.parametrize("source", [DUTY, POD, KEPT])
@pytest.mark.parametrize("asker", [ALICE, None])
def test_everybody_sees_and_touches_their_own(
    visibility: Visibility, source: Source, asker: str | None
) -> None:
    assert visibility.is_listed(asker, asker, source)
    assert visibility.opens_by_id(asker, asker, source)
    assert visibility.may_touch(asker, asker, source)
    assert not visibility.has_place(asker, asker, source)


@pytest.mark.parametrize(
    ("visibility", "asker", "owner", "source", "listed", "by_id", "touched", "place"),
    [
        # visibility, asker, owner, source: listed, by its id, touched, a place in the queue
        (OPEN, BOB, ALICE, DUTY, True, True, True, False),
        (OPEN, BOB, None, DUTY, True, True, True, False),
        (OPEN, BOB, UNCLAIMED, DUTY, True, True, True, False),
        (OPEN, None, ALICE, DUTY, True, True, True, False),
        (OPEN, BOB, ALICE, POD, False, False, False, False),
        (OPEN, BOB, None, POD, False, False, False, False),
        (OPEN, None, ALICE, POD, False, True, True, False),
        (OPEN, BOB, ALICE, KEPT, False, False, False, False),
        (OPEN, None, ALICE, KEPT, False, True, True, False),
        (ACTIONS, BOB, ALICE, DUTY, True, True, False, False),
        (ACTIONS, BOB, None, DUTY, True, True, False, False),
        (ACTIONS, BOB, UNCLAIMED, DUTY, True, True, False, False),
        (ACTIONS, None, ALICE, DUTY, True, True, False, False),
        (ACTIONS, None, UNCLAIMED, DUTY, True, True, False, False),
        (ACTIONS, BOB, ALICE, POD, False, False, False, False),
        (ACTIONS, None, ALICE, POD, False, True, True, False),
        (FULL, BOB, ALICE, DUTY, False, False, False, True),
        (FULL, BOB, None, DUTY, False, False, False, True),
        (FULL, BOB, UNCLAIMED, DUTY, False, False, False, True),
        (FULL, None, ALICE, DUTY, False, True, True, True),
        (FULL, None, UNCLAIMED, DUTY, False, False, False, True),
        (FULL, BOB, ALICE, POD, False, False, False, False),
        (FULL, None, ALICE, POD, False, True, True, False),
        (SIGNED_IN, BOB, ALICE, DUTY, False, False, False, True),
        (SIGNED_IN, None, ALICE, DUTY, False, False, False, True),
        (SIGNED_IN, None, ALICE, POD, False, False, False, False),
        (SIGNED_IN, None, ALICE, KEPT, False, False, False, False),
    ],
)
def test_the_table(
    visibility: Visibility,
    asker: str | None,
    owner: Owner,
    source: Source,
    listed: bool,
    by_id: bool,
    touched: bool,
    place: bool,
) -> None:
    assert visibility.is_listed(asker, owner, source) is listed
    assert visibility.opens_by_id(asker, owner, source) is by_id
    assert visibility.may_touch(asker, owner, source) is touched
    assert visibility.has_place(asker, owner, source) is place


@pytest.mark.parametrize(
    ("visibility", "hides", "guards"), [(OPEN, False, False), (ACTIONS, False, True), (FULL, True, True)]
)
def test_full_guards_what_it_hides(visibility: Visibility, hides: bool, guards: bool) -> None:
    assert visibility.hides_others is hides
    assert visibility.guards_others is guards


def test_a_prompt_that_nobody_sent_through_the_gateway_is_nobodys() -> None:
    assert is_own(None, None)
    assert not is_own(None, UNCLAIMED)
    assert not is_own(ALICE, None)
