"""The promises of ``core.vault.ports.VaultRows``, over SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfy_gateway.adapters.sql import Database, SqlVaultRows, open_database
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.ports import VaultRows
from comfy_gateway.core.vault.vault import StoredFile

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
STORED = StoredFile(
    user_key="named:alice",
    pod_name="comfy-gw-alice-a1",
    alias="private-a1",
    file=FileName("ComfyUI_00001_.png", "portraits"),
    version=1,
    path="named-alice/2026-11-23/private-a1/portraits/ComfyUI_00001_.png",
    sha256="ab" * 32,
    size_bytes=5_000_000_000,
    etag="18ea-12a05f200",
    stored_at=NOON,
    prompt_id="p1",
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(await server.create_database())
    opened = await open_database(url)
    yield opened
    await opened.aclose()


@pytest.fixture
def rows(database: Database) -> VaultRows:
    return SqlVaultRows(database)


async def test_an_empty_vault_has_nothing(rows: VaultRows) -> None:
    assert await rows.of_pod(STORED.pod_name) == []
    assert await rows.of_names([(STORED.alias, STORED.file)]) == []
    assert await rows.of_names([]) == []
    assert await rows.owners() == {}
    assert await rows.total_bytes() == 0
    assert await rows.oldest(5) == []
    await rows.remove(STORED)


async def test_a_row_comes_back_as_it_was(rows: VaultRows) -> None:
    plain = replace(STORED, file=FileName("b.png"), etag=None, prompt_id=None)
    await rows.add(STORED)
    await rows.add(plain)
    assert sorted(await rows.of_pod(STORED.pod_name), key=lambda row: row.path + row.file.path) == sorted(
        [STORED, plain], key=lambda row: row.path + row.file.path
    )
    assert await rows.of_names([(STORED.alias, STORED.file)]) == [STORED]


async def test_a_row_of_the_same_name_and_version_is_replaced(rows: VaultRows) -> None:
    await rows.add(STORED)
    changed = replace(STORED, etag="2-2", sha256="cd" * 32)
    await rows.add(changed)
    assert await rows.of_pod(STORED.pod_name) == [changed]


async def test_contents_of_a_name_come_in_the_order_of_their_versions(rows: VaultRows) -> None:
    versions = [replace(STORED, version=number) for number in (10, 2, 1)]
    for version in versions:
        await rows.add(version)
    assert await rows.of_names([(STORED.alias, STORED.file)]) == versions[::-1]


async def test_very_many_and_very_long_names_can_be_asked_for(rows: VaultRows) -> None:
    long = replace(STORED, file=FileName("ä" * 500, "漢" * 500))
    await rows.add(long)
    names = [(STORED.alias, FileName(f"{number}.png")) for number in range(1234)]
    assert await rows.of_names([*names, (long.alias, long.file)]) == [long]


async def test_each_alias_has_its_owner(rows: VaultRows) -> None:
    await rows.add(STORED)
    await rows.add(replace(STORED, file=FileName("b.png")))
    await rows.add(replace(STORED, alias="private-b2", user_key="named:bob"))
    assert await rows.owners() == {"private-a1": "named:alice", "private-b2": "named:bob"}


async def test_sizes_are_summed_and_the_oldest_come_first(rows: VaultRows) -> None:
    stored = [
        replace(STORED, file=FileName(f"{hours}.png"), stored_at=NOON + timedelta(hours=hours))
        for hours in (3, 1, 2)
    ]
    for one in stored:
        await rows.add(one)
    assert await rows.total_bytes() == 15_000_000_000
    assert await rows.oldest(2) == [stored[1], stored[2]]
    assert await rows.oldest(5, before=NOON + timedelta(hours=2)) == [stored[1]]


async def test_a_row_that_is_removed_is_gone(rows: VaultRows) -> None:
    second = replace(STORED, version=2)
    await rows.add(STORED)
    await rows.add(second)
    await rows.remove(STORED)
    assert await rows.of_pod(STORED.pod_name) == [second]


async def test_a_database_that_is_closed_is_unavailable(rows: VaultRows, database: Database) -> None:
    await database.aclose()
    with pytest.raises(StoreUnavailable):
        await rows.of_pod(STORED.pod_name)
