"""The promises of ``core.inputs.ports.UploadRows``, over SQLite, PostgreSQL and the fake that other tests use."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfy_gateway.adapters.sql import open_database
from comfy_gateway.adapters.sql.upload_rows import SqlUploadRows
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import UploadRows
from comfy_gateway.core.inputs.uploads import Content, Copy, Upload
from tests.contract.postgres import PostgresServer
from tests.fakes.uploads import FakeUploadRows

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
A, B = FileName("ä [x]'\".png", "", "input"), FileName("b.png", "sub/deep", "temp")
X, Y = Content("a" * 64, 2**40), Content("b" * 64, 0)
FIRST = Upload("named:alice", A, X, NOW)
SECOND = Upload("named:alice", A, Y, NOW + timedelta(microseconds=1), is_listed=False)
OTHER = Upload("address:10.0.0.1", B, X, NOW + timedelta(hours=1))
THERE = Copy("https://duty.example/", A, X, is_carried=True, etag='"17-2"')
THERE_TOO = Copy("comfy-gw-alice-k3", B, Y)


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def rows(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UploadRows]:
    if request.param == "fake":
        yield FakeUploadRows()
        return
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.url(await server.create_database())
    database = await open_database(url)
    yield SqlUploadRows(database)
    await database.aclose()


async def test_uploads_come_back_as_they_were_oldest_first(rows: UploadRows) -> None:
    await rows.write_uploads(uploads=[OTHER, SECOND, FIRST])
    assert list(await rows.load_uploads(10)) == [FIRST, SECOND, OTHER]
    assert list(await rows.load_uploads(2)) == [SECOND, OTHER]


async def test_an_upload_written_again_is_one_upload(rows: UploadRows) -> None:
    await rows.write_uploads(uploads=[FIRST])
    await rows.write_uploads(uploads=[replace(FIRST, content=Y)])
    assert list(await rows.load_uploads(10)) == [replace(FIRST, content=Y)]


async def test_an_upload_that_is_gone_goes_alone(rows: UploadRows) -> None:
    await rows.write_uploads(uploads=[FIRST, SECOND, OTHER])
    await rows.write_uploads(gone_uploads=[FIRST, replace(OTHER, file=A)])
    assert list(await rows.load_uploads(10)) == [SECOND, OTHER]


async def test_a_copy_replaces_the_one_of_its_name_and_place(rows: UploadRows) -> None:
    await rows.write_uploads(copies=[THERE, THERE_TOO])
    assert set(await rows.load_copies(10)) == {THERE, THERE_TOO}
    later = Copy(THERE.place, A, Y)
    await rows.write_uploads(copies=[later])
    assert set(await rows.load_copies(10)) == {later, THERE_TOO}
    assert len(await rows.load_copies(1)) == 1
    await rows.write_uploads(gone_copies=[(THERE.place, A), ("nowhere", B)])
    assert list(await rows.load_copies(10)) == [THERE_TOO]


async def test_nothing_to_write_is_no_error(rows: UploadRows) -> None:
    await rows.write_uploads()
    assert (list(await rows.load_uploads(1)), list(await rows.load_copies(1))) == ([], [])


async def test_many_rows_go_into_one_transaction(rows: UploadRows) -> None:
    copies = [Copy("pod", FileName(f"{number}.png", "", "input"), X) for number in range(500)]
    uploads = [replace(FIRST, file=copy.file) for copy in copies]
    await rows.write_uploads(uploads=uploads, copies=copies)
    await rows.write_uploads(
        gone_uploads=uploads[1:], gone_copies=[("pod", copy.file) for copy in copies[1:]]
    )
    assert (list(await rows.load_uploads(9)), list(await rows.load_copies(9))) == (uploads[:1], copies[:1])


async def test_a_closed_database_is_said(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'gateway.db'}")
    await database.aclose()
    with pytest.raises(StoreUnavailable):
        await SqlUploadRows(database).write_uploads(uploads=[FIRST])
