"""Whose files bear no alias, and who is meant by a place in the list, over SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comfy_gateway.adapters.sql import Database, SqlLedgerStore, SqlPlainNames, open_database
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.prompts.prompts import LedgerChange, LedgerRow, PromptRecord
from tests.contract.postgres import PostgresServer

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RECORD = PromptRecord("p0", "named:alice", "tab", "duty-0", accepted_at=NOW)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.url(await server.create_database())
    opened = await open_database(url)
    yield opened
    await opened.aclose()


async def test_the_first_home_keeps_its_names_whatever_becomes_home_later(database: Database) -> None:
    names = SqlPlainNames(database)
    assert await names.settle(["duty-a", "duty-b"]) == "duty-a"
    assert await names.settle(["duty-b", "duty-a"]) == "duty-a"
    assert await names.settle(["duty-b"]) == "duty-a"


async def test_prompts_by_place_become_those_of_the_server_that_stood_there_once_and_for_all(
    database: Database,
) -> None:
    ledger, names = SqlLedgerStore(database), SqlPlainNames(database)
    for number, backend_id in enumerate(("duty-0", "duty-1", "duty-2", "comfy-gw-alice-1")):
        record = replace(RECORD, prompt_id=f"p{number}", backend_id=backend_id, position=number)
        await ledger.write([LedgerChange(record.prompt_id, row=LedgerRow(record), is_new=True)])

    async def servers() -> list[str]:
        return [row.record.backend_id for row in await ledger.load(10)]

    await names.settle(["duty-a", "duty-b"])
    assert await servers() == ["duty-a", "duty-b", "duty-2", "comfy-gw-alice-1"]
    await names.settle(["duty-b", "duty-a", "duty-c"])
    assert await servers() == ["duty-a", "duty-b", "duty-2", "comfy-gw-alice-1"], "it was not the third then"


async def test_a_database_that_is_gone_says_so(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'gateway.db'}")
    await database.aclose()
    with pytest.raises(StoreUnavailable):
        await SqlPlainNames(database).settle(["duty-a"])
