"""One process at a time, over processes that die and processes that only seem to."""

from pathlib import Path

import pytest

from model_sync import bookkeeping
from model_sync.claims import Claim, Claims
from model_sync.errors import LostClaim
from tests.conditions import wait_for

PATH = "checkpoints/x.safetensors"
LEASE_S = 0.6
# wait_for looks every 15 ms: more than a lease.
LOOKS = 60


async def test_a_file_has_one_claim_and_others_are_free(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    async with first.claim(PATH) as held:
        assert held is not None
        async with second.claim(PATH) as refused, second.claim("loras/y") as free:
            assert refused is None
            assert free is not None
    async with second.claim(PATH) as held:
        assert held is not None
    assert not bookkeeping.claim_file(tmp_path, PATH).exists()


async def test_a_claim_that_is_touched_is_kept_and_one_that_is_not_runs_out(tmp_path: Path) -> None:
    first, second = Claims(tmp_path, lease_s=LEASE_S), Claims(tmp_path, lease_s=LEASE_S)
    looks: list[bool] = []

    async def taken() -> bool:
        async with second.claim(PATH) as held:
            looks.append(held is not None)
            return held is not None

    async def taken_or_looked_enough() -> bool:
        return await taken() or len(looks) >= LOOKS

    async with first.claim(PATH) as held:
        assert held is not None
        await wait_for(taken_or_looked_enough, "more than a lease of looks")
        assert not any(looks)
        # As a pod that is cut off: it lives, and touches nothing any more.
        held._lease._stop_heartbeat()
        await wait_for(taken, "the claim to run out", deadline_s=5)


async def test_a_holder_notices_that_its_claim_was_taken(tmp_path: Path) -> None:
    async with Claims(tmp_path, lease_s=LEASE_S).claim(PATH) as held:
        assert held is not None
        held.check()
        file = bookkeeping.claim_file(tmp_path, PATH)
        file.unlink()
        file.write_text("somebody else")
        with pytest.raises(LostClaim):
            await wait_for(lambda: _check(held), "the loss", deadline_s=5)


def _check(held: Claim) -> bool:
    held.check()
    return False
