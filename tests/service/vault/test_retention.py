"""Kept files that have become too old or too many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from comfy_gateway.adapters.local_files import LocalFiles
from comfy_gateway.adapters.sql import Database, SqlVaultRows, open_database
from comfy_gateway.adapters.vault_disk import ThreadedDisk
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.vault import StoredFile
from comfy_gateway.service.vault.retention import VaultRetention
from comfy_gateway.service.vault.trouble import VaultStats
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock


class Stand:
    """Ten files of a hundred bytes, one an hour."""

    def __init__(self, root: Path, database: Database, clock: FakeClock) -> None:
        self.root = root
        self.clock = clock
        self.database = database
        self.rows = SqlVaultRows(database)
        self.disk = ThreadedDisk(LocalFiles(root, reserve_bytes=0))
        self.stats = VaultStats()

    async def fill(self, count: int = 10) -> None:
        for number in range(count):
            part = await self.disk.create(f"alice/{number:03}.png")
            await part.write(bytes(100))
            await part.keep(modified_ns=None)
            await self.rows.add(
                StoredFile(
                    "named:alice",
                    "pod",
                    "private-a1",
                    FileName(f"{number:03}.png"),
                    1,
                    f"alice/{number:03}.png",
                    part.sha256,
                    100,
                    None,
                    self.clock.now() + timedelta(hours=number),
                )
            )
        self.stats.size_bytes = 100 * count

    def retention(self, *, max_bytes: int | None = None, max_age_s: float | None = None) -> VaultRetention:
        return VaultRetention(
            disk=self.disk,
            rows=self.rows,
            clock=self.clock,
            stats=self.stats,
            max_bytes=max_bytes,
            max_age_s=max_age_s,
        )

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.rglob("*.png"))


@pytest.fixture
async def stand(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Stand]:
    async with AsyncExitStack() as stack:
        database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}")
        stack.push_async_callback(database.aclose)
        made = Stand(tmp_path / "vault", database, clock)
        stack.push_async_callback(made.disk.aclose)
        await made.fill()
        yield made


async def test_without_limits_everything_stays(stand: Stand) -> None:
    await stand.clock.advance(10**7)
    assert await stand.retention().sweep() == 0
    assert len(stand.names()) == 10


async def test_what_is_too_old_goes_from_disk_and_database(stand: Stand) -> None:
    await stand.clock.advance(24 * 3600)
    assert await stand.retention(max_age_s=20.5 * 3600).sweep() == 4
    assert stand.names() == [f"{number:03}.png" for number in range(4, 10)]
    assert len(await stand.rows.of_pod("pod")) == 6
    assert stand.stats.files_expired == 4
    assert stand.stats.size_bytes == 600


async def test_of_too_much_the_oldest_goes_until_the_rest_fits(stand: Stand) -> None:
    assert await stand.retention(max_bytes=350).sweep() == 7
    assert stand.names() == ["007.png", "008.png", "009.png"]
    assert await stand.retention(max_bytes=350).sweep() == 0


async def test_a_file_that_somebody_has_deleted_is_no_hindrance(stand: Stand) -> None:
    (stand.root / "alice" / "000.png").unlink()
    assert await stand.retention(max_bytes=500).sweep() == 5


async def test_a_vault_that_has_become_too_large_is_looked_at_within_a_minute(stand: Stand) -> None:
    task = asyncio.ensure_future(stand.retention(max_bytes=2000).run())
    await wait_for(lambda: stand.clock.sleepers, "the first look")
    assert len(stand.names()) == 10
    await stand.fill(30)
    await stand.clock.advance(61)
    await wait_for(lambda: len(stand.names()) == 20, "the removal")
    task.cancel()


async def test_a_database_that_is_away_is_tried_again_an_hour_later(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    await stand.database.aclose()
    task = asyncio.ensure_future(stand.retention(max_age_s=1).run())
    for looks in (1, 2):
        await wait_for(lambda looks=looks: caplog.text.count("not removed yet") == looks, "the warning")  # type: ignore[misc]
        await wait_for(lambda: stand.clock.sleepers, "the sleep")
        for _ in range(60):
            await stand.clock.advance(60)
    task.cancel()
