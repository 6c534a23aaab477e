"""Contents kept by their checksum, on a real disk."""

import asyncio
import hashlib
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfy_gateway.adapters.input_store import DiskInputStore
from comfy_gateway.core.errors import StorageUnavailable
from comfy_gateway.core.inputs.uploads import Content


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def opened(root: Path, **options: int) -> DiskInputStore:
    store = DiskInputStore(root / "state" / "inputs", reserve_bytes=options.get("reserve_bytes", 0))
    await store.open()
    return store


async def keep(store: DiskInputStore, data: bytes) -> Content:
    async with store.part(len(data)) as part:
        await part.write(data)
        return await part.finish()


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond that: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_content_is_found_under_its_checksum_and_is_for_nobody_else(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    async with store.part() as part:
        for piece in (b"one", b"", b"two" * 500_000):
            await part.write(piece)
        content = await part.finish()
    data = b"one" + b"two" * 500_000
    assert content == Content(sha256(data), len(data))
    assert store.find(content.sha256) == content
    assert store.path(content.sha256).read_bytes() == data
    assert stat.S_IMODE(store.path(content.sha256).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path("x").parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in store.path("x").parent.iterdir()) == [content.sha256]


async def test_what_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    with pytest.raises(RuntimeError, match="client gone"):
        async with store.part() as part:
            await part.write(b"x" * 3_000_000)
            raise RuntimeError("client gone")
    assert list(store.path("x").parent.iterdir()) == []


async def test_a_cancelled_write_leaves_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    began = asyncio.Event()

    async def write_for_ever() -> None:
        async with store.part() as part:
            while True:
                await part.write(b"x" * 1_048_576)
                began.set()

    task = asyncio.create_task(write_for_ever())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(store.path("x").parent.iterdir()) == []


async def test_the_next_life_finds_what_is_whole_and_removes_the_rest(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    content = await keep(store, b"picture")
    (store.path("x").parent / "0123.part").write_bytes(b"half")
    (store.path("x").parent / "README").write_text("not ours")
    again = await opened(tmp_path)
    assert again.find(content.sha256) == content
    assert sorted(path.name for path in again.path("x").parent.iterdir()) == sorted(
        [content.sha256, "README"]
    )


async def test_what_was_not_used_for_longest_is_told_first(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    first, second = await keep(store, b"first"), await keep(store, b"second")
    for number, content in enumerate((first, second)):
        os.utime(store.path(content.sha256), (1000 + number, 1000 + number))
    store = await opened(tmp_path)
    assert [kept.content for kept in store.all()] == [first, second]
    await store.used(first.sha256)
    await store.used("0" * 64)
    assert [kept.content for kept in store.all()] == [second, first]
    await store.remove(second.sha256)
    await store.remove(second.sha256)
    assert [kept.content for kept in store.all()] == [first]
    store.path(first.sha256).unlink()
    await store.used(first.sha256)


async def test_the_same_content_twice_is_one_file(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert await keep(store, b"picture") == await keep(store, b"picture")
    assert len(store.all()) == 1


async def test_a_disk_that_refuses_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    with files_limited_to(100_000), pytest.raises(StorageUnavailable, match="File too large"):
        await keep(store, b"x" * 200_000)
    assert list(store.path("x").parent.iterdir()) == []
    assert await keep(store, b"small") == Content(sha256(b"small"), 5)


async def test_the_reserve_is_left_free_and_this_is_said_before_anything_is_read(tmp_path: Path) -> None:
    store = await opened(tmp_path, reserve_bytes=1 << 60)
    with pytest.raises(StorageUnavailable, match="full"):
        async with store.part(5):
            pytest.fail("it was let in")
    small = await opened(tmp_path)
    with pytest.raises(StorageUnavailable, match="full"):
        async with small.part(1 << 60):
            pytest.fail("it was let in")


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable, match="cannot be used"):
        await opened(tmp_path)


async def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    store.path("x").parent.rmdir()
    with pytest.raises(StorageUnavailable):
        await keep(store, b"x")
