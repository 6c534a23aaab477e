"""Whose upload it is, and which server it lies on."""

import pytest

from comfy_gateway.core.uploads import owner_keys, place_of
from comfy_gateway.core.upstream import Backend, Source, Upstream
from comfy_gateway.core.users import IdKind, UserId

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
