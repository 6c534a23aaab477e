"""The part of a file: what survives whom, and that nobody but its writer ever gives it the final name."""

import json
import os
from pathlib import Path

import pytest

from model_sync.errors import LostClaim
from model_sync.part_file import PartFile
from tests.model_sync.mean_server import content
from tests.model_sync.stand import leftovers, sha256

DATA = content(100_000)
HALF = 50_000


async def _half(target: Path, *, writer: str | None = None) -> PartFile:
    """A part with its first half, still open. `writer`: as if that process had it open."""
    part = await PartFile.open(target, trust_unsynced=True)
    await part.begin("source", validator='"v1"', total_bytes=len(DATA))
    await part.append(DATA[:HALF])
    if writer is not None:
        note = target.with_name(f"{target.name}.part.json")
        note.write_text(json.dumps({**json.loads(note.read_text()), "writer": writer}))
    return part


async def test_what_was_left_in_order_is_certain(tmp_path: Path) -> None:
    target = tmp_path / "x"
    await (await _half(target)).leave()
    part = await PartFile.open(target, trust_unsynced=False)
    assert (part.size_bytes, part.sha256, part.inherited) == (HALF, sha256(DATA[:HALF]), True)
    assert (part.origin.source, part.origin.validator) == ("source", '"v1"')
    await part.append(DATA[HALF:])
    await part.put_in_place()
    assert target.read_bytes() == DATA
    assert leftovers(tmp_path) == ["x"]


@pytest.mark.parametrize(("trust_unsynced", "kept"), [(True, HALF), (False, 0)])
async def test_what_was_written_and_not_synced_counts_only_where_a_checksum_will_tell(
    trust_unsynced: bool, kept: int, tmp_path: Path
) -> None:
    (await _half(tmp_path / "x")).close()  # a kill closes too
    part = await PartFile.open(tmp_path / "x", trust_unsynced=trust_unsynced)
    assert part.size_bytes == kept
    await part.leave()


@pytest.mark.parametrize("note", [None, "", "[]", '{"source": 1, "unheard": 2}'])
async def test_bytes_of_unknown_origin_are_not_used(note: str | None, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA)
    if note is not None:
        (tmp_path / "x.part.json").write_text(note)
    part = await PartFile.open(tmp_path / "x", trust_unsynced=True)
    assert part.size_bytes == 0
    await part.leave()


@pytest.mark.parametrize(
    "writer",
    ["another-pod boot pid:[1] 7", f"another-pod boot pid:[1] {os.getpid()}", "unreadable"],
    ids=["another pod", "our number in another pod", "unreadable"],
)
async def test_a_writer_that_lost_its_file_to_another_pod_cannot_spoil_it(
    writer: str, tmp_path: Path
) -> None:
    target = tmp_path / "x"
    ghost = await _half(target, writer=writer)
    successor = await PartFile.open(target, trust_unsynced=True)
    assert successor.size_bytes == HALF
    await ghost.append(b"from the other world")
    await successor.append(DATA[HALF:])
    with pytest.raises(LostClaim):
        await ghost.restart()
    with pytest.raises(LostClaim):
        await ghost.put_in_place()
    assert not target.exists()
    await ghost.leave()
    await successor.put_in_place()
    assert target.read_bytes() == DATA
    assert leftovers(tmp_path) == ["x"]


async def test_a_writer_that_wakes_after_the_file_is_in_place_leaves_it_alone(tmp_path: Path) -> None:
    target = tmp_path / "x"
    ghost = await _half(target, writer="another-pod")
    successor = await PartFile.open(target, trust_unsynced=True)
    await successor.append(DATA[HALF:])
    await successor.put_in_place()
    await ghost.append(b"from the other world")
    with pytest.raises(LostClaim):
        await ghost.put_in_place()
    await ghost.leave()
    assert target.read_bytes() == DATA
    assert leftovers(tmp_path) == ["x"]


async def test_a_process_that_is_gone_for_certain_costs_no_copy(tmp_path: Path) -> None:
    (await _half(tmp_path / "x")).close()
    inode = (tmp_path / "x.part").stat().st_ino
    part = await PartFile.open(tmp_path / "x", trust_unsynced=True)
    assert (tmp_path / "x.part").stat().st_ino == inode
    await part.leave()


async def test_what_was_killed_between_its_two_names_is_a_part_again(tmp_path: Path) -> None:
    target = tmp_path / "x"
    await (await _half(target)).leave()
    (tmp_path / "x.part").rename(tmp_path / ".x.0123456789abcdef.done")
    (tmp_path / ".x.fedcba9876543210.copy").write_bytes(b"half a copy")
    (tmp_path / ".x.part.json.77.01234567").write_text("half a note")
    (tmp_path / ".x.mine").write_text("not ours")
    part = await PartFile.open(target, trust_unsynced=True)
    assert part.size_bytes == HALF
    await part.leave()
    assert leftovers(tmp_path) == [".x.mine", "x.part", "x.part.json"]


async def test_a_folder_with_the_final_name_leaves_the_part(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    part = await _half(tmp_path / "x")
    with pytest.raises(OSError, match="directory"):
        await part.put_in_place()
    await part.leave()
    assert (tmp_path / "x.part").stat().st_size == HALF
