"""What several contract suites need."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.contract.postgres import PostgresServer, running_postgres
from tests.programs import require_program


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of a process; each test makes its own database in it."""
    with running_postgres(require_program("initdb").resolve().parent) as server:
        yield server
