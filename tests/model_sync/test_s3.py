"""s3:// by fsspec. The cloud behind it is fsspec's own file system in memory, registered under the name of S3."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.registry import _registry

from tests.model_sync.mean_server import content
from tests.model_sync.stand import FAST, entry, leftovers, run

MB = 1 << 20
DATA = content(3 * MB + 77)
PATH = "checkpoints/x.safetensors"
URL = "s3://bucket/models/x.safetensors"


class Failing(MemoryFile):  # type: ignore[misc]
    """Fails once, after 2 MB."""

    failures = 0

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 2 * MB and Failing.failures:
            Failing.failures -= 1
            raise OSError("connection reset")
        return super().read(min(size, MB) if size and size > 0 else MB)  # type: ignore[no-any-return]


class Cloud(MemoryFileSystem):  # type: ignore[misc]
    """With versions, as S3 has them. `seeks` are the offsets that were read from."""

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec's way
    seeks: list[int] = []  # noqa: RUF012
    etag = '"v1"'

    refusal: Exception | None = None
    infos = 0

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        Cloud.infos += 1
        if Cloud.refusal is not None:
            raise Cloud.refusal
        return {**super().info(path, **kwargs), "ETag": Cloud.etag}

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super().open(path, mode, **options)
        file = Failing(self, path, self.cat_file(path))
        seek = file.seek

        def noted(offset: int, whence: int = 0) -> int:
            Cloud.seeks.append(offset)
            return int(seek(offset, whence))

        file.seek = noted
        return file


@pytest.fixture
def cloud() -> Iterator[MemoryFileSystem]:
    fsspec.register_implementation("s3", Cloud, clobber=True)
    Cloud.seeks, Cloud.etag, Failing.failures = [], '"v1"', 0
    Cloud.refusal, Cloud.infos = None, 0
    try:
        files = Cloud()
        files.pipe_file("bucket/models/x.safetensors", DATA)
        yield files
    finally:
        _registry.pop("s3")
        Cloud.store.clear()


async def test_a_file_comes_from_a_bucket(cloud: MemoryFileSystem, tmp_path: Path) -> None:
    outcome = await run(tmp_path, entry(PATH, URL, data=DATA), entry("a/unpublished", URL))
    assert sorted(outcome.fetched) == ["a/unpublished", PATH]
    assert (tmp_path / PATH).read_bytes() == (tmp_path / "a/unpublished").read_bytes() == DATA


@pytest.mark.parametrize("checksum", [True, False])
async def test_a_bucket_that_fails_on_the_way_is_continued(
    checksum: bool, cloud: MemoryFileSystem, tmp_path: Path
) -> None:
    Failing.failures = 1
    known = entry(PATH, URL, data=DATA) if checksum else entry(PATH, URL, size_bytes=len(DATA))
    assert (await run(tmp_path, known)).fetched == [PATH]
    assert (tmp_path / PATH).read_bytes() == DATA
    assert leftovers(tmp_path) == [PATH]
    assert 2 * MB in Cloud.seeks


async def test_an_object_that_changed_meanwhile_starts_anew(cloud: MemoryFileSystem, tmp_path: Path) -> None:
    Failing.failures = 10
    wanted = entry(PATH, URL, size_bytes=len(DATA))
    assert (await run(tmp_path, wanted)).missing
    new = content(len(DATA), seed=1)
    cloud.pipe_file("bucket/models/x.safetensors", new)
    Cloud.etag, Failing.failures = '"v2"', 0
    assert (await run(tmp_path, wanted)).fetched == [PATH]
    assert (tmp_path / PATH).read_bytes() == new


async def test_an_object_that_is_not_there_is_a_reason(cloud: MemoryFileSystem, tmp_path: Path) -> None:
    outcome = await run(tmp_path, entry(PATH, "s3://bucket/models/none"))
    assert "s3://bucket/models/none" in outcome.missing[PATH][0]


@pytest.mark.parametrize(
    ("error", "told", "asked"),
    [
        ("NoCredentialsError", "Unable to locate credentials", 1),
        ("ConnectionClosedError", "ConnectionClosedError", FAST.retries),
    ],
)
async def test_an_error_of_amazons_own_kind_is_a_reason(
    error: str, told: str, asked: int, cloud: MemoryFileSystem, tmp_path: Path
) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    Cloud.refusal = getattr(exceptions, error)(endpoint_url="https://s3.example")
    outcome = await run(tmp_path, entry(PATH, URL, data=DATA))
    assert told in outcome.missing[PATH][0]
    assert Cloud.infos == asked


async def test_without_s3fs_the_reason_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python has it for a package that is not installed.
    monkeypatch.setitem(sys.modules, "s3fs", None)
    outcome = await run(tmp_path, entry(PATH, URL))
    assert "requirements-s3.txt" in outcome.missing[PATH][0]
