from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId

KEYS = Keys(b"k" * 32)
ALICE = UserId(IdKind.NAMED, "alice")
BOB = UserId(IdKind.NAMED, "bob")


def test_everybody_has_a_socket_of_their_own_for_the_same_client_id() -> None:
    client = UserId(IdKind.CLIENT, "tab")
    ids = {upstream_sid(KEYS, user, "tab") for user in (ALICE, BOB, client, None)}

    assert len(ids) == 4


def test_the_same_client_finds_the_same_socket_again() -> None:
    assert upstream_sid(KEYS, None, "tab") == upstream_sid(KEYS, None, "tab")
    assert upstream_sid(KEYS, ALICE, "tab") == KEYS.upstream_sid(ALICE, "tab")


def test_without_a_user_each_client_id_has_its_own_socket() -> None:
    assert upstream_sid(KEYS, None, "one") != upstream_sid(KEYS, None, "two")
