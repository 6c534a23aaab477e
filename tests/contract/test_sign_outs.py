"""The promises of ``core.people.sign_in.SignOutStore``, over SQLite, PostgreSQL and the fake that other tests use."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfy_gateway.adapters.sql import SqlSignOuts, open_database
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.people.sign_in import SignOutStore
from tests.contract.postgres import PostgresServer
from tests.fakes.sign_outs import FakeSignOuts

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SOON, LATE = NOW + timedelta(minutes=1), NOW + timedelta(days=7)


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SignOutStore]:
    if request.param == "fake":
        yield FakeSignOuts()
        return
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.url(await server.create_database())
    database = await open_database(url)
    yield SqlSignOuts(database)
    await database.aclose()


async def test_what_was_ended_stays_ended_until_it_would_have_ended_by_itself(store: SignOutStore) -> None:
    assert await store.load(NOW) == frozenset()
    await store.add("a", LATE, NOW)
    await store.add("b", SOON, NOW)
    await store.add("b", SOON, NOW)
    assert await store.load(NOW) == {"a", "b"}
    assert await store.load(SOON) == {"a"}


async def test_a_later_sign_out_forgets_what_has_ended_by_itself(store: SignOutStore) -> None:
    await store.add("b", SOON, NOW)
    await store.add("a", LATE, SOON + timedelta(seconds=1))
    assert await store.load(NOW) == {"a"}


async def test_a_store_that_is_gone_says_so(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'gateway.db'}")
    store = SqlSignOuts(database)
    await database.aclose()
    with pytest.raises(StoreUnavailable):
        await store.add("a", LATE, NOW)
    with pytest.raises(StoreUnavailable):
        await store.load(NOW)
