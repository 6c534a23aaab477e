"""The first who shows a client_id keeps it, within bounds."""

from comfy_gateway.core.people.client_ids import ClientIds
from comfy_gateway.core.people.users import IdKind, UserId

ANNA = UserId(IdKind.BROWSER, "anna")
BERT = UserId(IdKind.BROWSER, "bert")


def test_the_first_claim_wins() -> None:
    ids = ClientIds()
    assert ids.owner("tab") is None
    assert ids.claim("tab", ANNA) == ANNA
    assert ids.claim("tab", BERT) == ANNA
    assert ids.owner("tab") == ANNA


def test_all_tabs_of_a_browser_are_one_user() -> None:
    ids = ClientIds()
    ids.claim("tab-1", ANNA)
    ids.claim("tab-2", ANNA)
    assert (ids.owner("tab-1"), ids.owner("tab-2"), len(ids)) == (ANNA, ANNA, 2)


def test_beyond_the_bound_the_least_recently_used_is_forgotten() -> None:
    ids = ClientIds(max_client_ids=2)
    ids.claim("a", ANNA)
    ids.claim("b", BERT)
    ids.owner("a")
    ids.claim("c", ANNA)
    assert (ids.owner("a"), ids.owner("b"), ids.owner("c")) == (ANNA, None, ANNA)
    assert ids.claim("b", ANNA) == ANNA


def test_one_user_with_many_ids_pushes_out_only_their_own() -> None:
    ids = ClientIds(max_client_ids=100, max_per_user=3)
    ids.claim("berts", BERT)
    for number in range(50):
        ids.claim(f"annas-{number}", ANNA)
    assert ids.owner("berts") == BERT
    assert ids.owner("annas-46") is None
    assert ids.owner("annas-47") == ANNA
    assert len(ids) == 4
