"""The promises of ``core.vault.ports.VaultDisk``, on a real disk and at an fsspec address."""

import asyncio
import errno
import hashlib
import os
import secrets
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

from comfy_gateway.adapters.local_files import PARTS, LocalFiles
from comfy_gateway.adapters.remote_files import RemoteFiles
from comfy_gateway.adapters.vault_disk import BlockingFiles, ThreadedDisk, ThreadedPart
from comfy_gateway.core.errors import StorageUnavailable
from comfy_gateway.core.vault.ports import VaultDisk
from tests.conditions import wait_for

MIB = 1024 * 1024
PATH = "named-alice-0a1b2c3d/2026-11-23/private-a1/portraits/ComfyUI_00001_.png"


@dataclass
class Place:
    """One empty place, and a way around the port for looking into it."""

    disk: VaultDisk
    names: Callable[[], list[str]]
    """Of everything that is in it, whoever put it there."""


def local_place(root: Path) -> Place:
    def names() -> list[str]:
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    return Place(ThreadedDisk(LocalFiles(root, reserve_bytes=0)), names)


def memory_place() -> Place:
    name = f"vault-{secrets.token_hex(8)}"
    system = fsspec.filesystem("memory")

    def names() -> list[str]:
        found = system.find(f"/{name}") if system.exists(f"/{name}") else []
        return sorted(path.removeprefix(f"/{name}/") for path in found)

    return Place(ThreadedDisk(RemoteFiles(f"memory://{name}")), names)


@pytest.fixture(params=["local", "memory"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    made = local_place(tmp_path / "vault") if request.param == "local" else memory_place()
    yield made
    await made.disk.aclose()


async def keep(disk: VaultDisk, path: str, *chunks: bytes) -> str:
    part = await disk.create(path)
    for chunk in chunks:
        await part.write(chunk)
    await part.keep(modified_ns=1_795_444_723_500_000_000)
    return part.sha256


async def read(disk: VaultDisk, path: str, start: int, stop: int) -> bytes:
    return b"".join([chunk async for chunk in disk.read(path, start, stop)])


async def test_what_was_kept_is_read_back_in_any_part(place: Place) -> None:
    data = secrets.token_bytes(3 * MIB + 17)
    digest = await keep(place.disk, PATH, data[:100], data[100:MIB], data[MIB:])
    assert digest == hashlib.sha256(data).hexdigest()
    assert await read(place.disk, PATH, 0, len(data)) == data
    assert await read(place.disk, PATH, MIB - 5, 2 * MIB + 5) == data[MIB - 5 : 2 * MIB + 5]
    assert await read(place.disk, PATH, len(data) - 1, len(data)) == data[-1:]
    with await asyncio.to_thread(place.disk.open, PATH) as opened:
        assert opened.read() == data
    assert place.names() == [PATH]


async def test_an_empty_content_is_one(place: Place) -> None:
    await keep(place.disk, PATH)
    assert await read(place.disk, PATH, 0, 0) == b""
    assert place.names() == [PATH]


async def test_size_and_digest_are_those_of_what_was_written_so_far(place: Place) -> None:
    part = await place.disk.create(PATH)
    await part.write(b"abc")
    assert (part.size_bytes, part.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    await part.discard()


async def test_nothing_stays_of_what_is_thrown_away(place: Place) -> None:
    part = await place.disk.create(PATH)
    await part.write(bytes(2 * MIB))
    await part.discard()
    await part.discard()
    assert place.names() == []


async def test_a_path_that_is_kept_again_has_the_new_content(place: Place) -> None:
    await keep(place.disk, PATH, b"of a gateway that was killed")
    await keep(place.disk, PATH, b"new")
    assert await read(place.disk, PATH, 0, 3) == b"new"


async def test_a_path_without_a_content_is_not_found(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        await read(place.disk, PATH, 0, 1)
    with pytest.raises(FileNotFoundError):
        await asyncio.to_thread(place.disk.open, PATH)
    await place.disk.remove(PATH)


async def test_a_content_is_removed(place: Place) -> None:
    await keep(place.disk, PATH, b"x")
    await keep(place.disk, PATH + "2", b"y")
    await place.disk.remove(PATH)
    assert place.names() == [PATH + "2"]


async def test_a_content_that_is_shorter_than_it_was_is_said(place: Place) -> None:
    await keep(place.disk, PATH, b"abc")
    with pytest.raises(StorageUnavailable):
        await read(place.disk, PATH, 0, 4)


async def test_the_check_leaves_nothing_behind(place: Place) -> None:
    await place.disk.check()
    assert place.names() == []


async def test_a_closed_place_takes_nothing(place: Place) -> None:
    await place.disk.aclose()
    with pytest.raises(StorageUnavailable, match="closed"):
        await place.disk.create(PATH)


# -- a disk of this machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "vault"


@pytest.fixture
async def disk(root: Path) -> AsyncIterator[ThreadedDisk]:
    made = ThreadedDisk(LocalFiles(root, reserve_bytes=0))
    yield made
    await made.aclose()


async def test_nobody_else_of_this_machine_may_look(disk: ThreadedDisk, root: Path) -> None:
    old = os.umask(0)
    try:
        await disk.check()
        await keep(disk, PATH, b"x")
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


async def test_a_file_shows_under_its_name_only_when_it_is_whole(disk: ThreadedDisk, root: Path) -> None:
    part = await disk.create(PATH)
    await part.write(b"half")
    assert not (root / PATH).exists()
    assert [path.read_bytes() for path in (root / PARTS).iterdir()] == [b"half"]
    await part.write(b" whole")
    await part.keep(modified_ns=1_795_444_723_500_000_000)
    assert (root / PATH).read_bytes() == b"half whole"
    assert (root / PATH).stat().st_mtime_ns == 1_795_444_723_500_000_000
    assert list((root / PARTS).iterdir()) == []


async def test_a_time_that_no_disk_takes_is_left_out(disk: ThreadedDisk, root: Path) -> None:
    part = await disk.create(PATH)
    await part.keep(modified_ns=2**70)
    assert (root / PATH).exists()


async def test_folders_that_a_removal_leaves_empty_go_with_it(disk: ThreadedDisk, root: Path) -> None:
    await disk.check()
    await keep(disk, PATH, b"x")
    await keep(disk, "named-alice-0a1b2c3d/2026-11-24/private-a2/y.png", b"y")
    await disk.remove(PATH)
    assert sorted(path.name for path in root.iterdir()) == [PARTS, "named-alice-0a1b2c3d"]
    assert [path.name for path in (root / "named-alice-0a1b2c3d").iterdir()] == ["2026-11-24"]


async def test_what_a_killed_gateway_left_half_done_goes_an_hour_later(
    disk: ThreadedDisk, root: Path
) -> None:
    parts = root / PARTS
    parts.mkdir(parents=True)
    for name, age_s in (("old.part", 4000), ("another-gateways.part", 5)):
        (parts / name).write_bytes(b"x")
        seen = (parts / name).stat()
        os.utime(parts / name, (seen.st_mtime - age_s, seen.st_mtime - age_s))
    await disk.check()
    assert [path.name for path in parts.iterdir()] == ["another-gateways.part"]


async def test_what_will_not_fit_is_refused_before_it_is_fetched(root: Path) -> None:
    disk = ThreadedDisk(LocalFiles(root, reserve_bytes=0))
    with pytest.raises(StorageUnavailable, match="full"):
        await disk.create(PATH, 2**60)
    await disk.aclose()


async def test_a_reserve_is_left_to_the_database(root: Path) -> None:
    disk = ThreadedDisk(LocalFiles(root, reserve_bytes=2**60))
    with pytest.raises(StorageUnavailable, match="full"):
        await disk.create(PATH)
    await disk.aclose()


async def test_a_folder_that_cannot_be_made_is_said_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in its place")
    disk = ThreadedDisk(LocalFiles(tmp_path / "state" / "vault"))
    with pytest.raises(StorageUnavailable) as caught:
        await disk.check()
    assert str(tmp_path) not in str(caught.value)
    assert str(caught.value) == os.strerror(errno.ENOTDIR)
    await disk.aclose()


# -- other places


class SlowPart:
    """A content on a disk in a network whose writes hang until the test lets them go on."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.order: list[str] = []

    def write(self, chunk: bytes) -> None:
        self.order.append("writing")
        self.may_write.wait(10)
        self.order.append("written")

    def keep(self, modified_ns: int | None) -> None:
        self.order.append("kept")

    def discard(self) -> None:
        self.order.append("discarded")


async def test_a_write_that_hangs_is_over_before_its_file_is_closed(disk: ThreadedDisk) -> None:
    slow = SlowPart()
    part = ThreadedPart(slow, disk._run)
    writing = asyncio.ensure_future(part.write(b"x"))
    await wait_for(lambda: slow.order, "the write to hang")
    writing.cancel()
    throwing_away = asyncio.ensure_future(part.discard())
    await asyncio.sleep(0)
    assert slow.order == ["writing"]
    slow.may_write.set()
    await throwing_away
    assert slow.order == ["writing", "written", "discarded"]


def test_an_address_that_fsspec_does_not_know_is_a_fault() -> None:
    with pytest.raises(ValueError, match="no address that fsspec can use"):
        RemoteFiles("nonsense://user:password@x")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Python has it for a package that is not installed.
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match="gcsfs"):
        RemoteFiles("gs://bucket/x")


async def test_an_error_of_any_kind_says_its_kind_and_no_address(tmp_path: Path) -> None:
    class Odd(LocalFiles):
        def part_of(self, path: str, start: int, stop: int) -> bytes:
            raise RuntimeError("https://key:secret@store.example/")

        def open(self, path: str) -> BinaryIO:
            raise RuntimeError("https://key:secret@store.example/")

    files: BlockingFiles = Odd(tmp_path)
    disk = ThreadedDisk(files)
    with pytest.raises(StorageUnavailable) as caught:
        await read(disk, PATH, 0, 1)
    assert str(caught.value) == "RuntimeError"
    with pytest.raises(StorageUnavailable):
        disk.open(PATH)
    await disk.aclose()
    assert (
        RemoteFiles("memory://x").meaning_of(OSError(5, "Input/output error"))
        == "OSError: Input/output error"
    )
    assert RemoteFiles("memory://x").meaning_of(RuntimeError("secret")) == "RuntimeError"


async def test_a_store_that_kept_something_else_is_not_believed() -> None:
    place = memory_place()
    part = await place.disk.create(PATH)
    await part.write(b"abc")
    system = fsspec.filesystem("memory")
    blocking = part._part  # type: ignore[attr-defined]
    blocking._file.commit = lambda: system.pipe_file(blocking._place, b"ab")
    with pytest.raises(StorageUnavailable):
        await part.keep(modified_ns=None)
    await part.discard()
    assert place.names() == []
    await place.disk.aclose()
