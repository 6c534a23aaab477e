"""Who sees what while the shared servers are as open as a plain ComfyUI."""

import pytest

from comfy_gateway.core.upstream import Source
from comfy_gateway.core.visibility import is_listed, is_own, opens_by_id

ALICE, BOB = "named:alice", "named:bob"


@pytest.mark.parametrize(
    ("asker", "owner", "source", "listed", "by_id"),
    [
        (ALICE, ALICE, Source.DUTY, True, True),
        (ALICE, BOB, Source.DUTY, True, True),
        (ALICE, None, Source.DUTY, True, True),
        (None, BOB, Source.DUTY, True, True),
        (ALICE, ALICE, Source.PRIVATE, True, True),
        (ALICE, BOB, Source.PRIVATE, False, False),
        (ALICE, None, Source.PRIVATE, False, False),
        (None, BOB, Source.PRIVATE, False, True),
        (ALICE, BOB, Source.GATEWAY, False, False),
        (None, BOB, Source.GATEWAY, False, True),
    ],
)
def test_the_table(asker: str | None, owner: str | None, source: Source, listed: bool, by_id: bool) -> None:
    assert is_listed(asker, owner, source) is listed
    assert opens_by_id(asker, owner, source) is by_id
    assert is_own(asker, owner) is (asker == owner)
