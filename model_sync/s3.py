"""Files in S3 and what speaks like it, by fsspec.

s3fs is not among model_sync's own requirements, since few need it: model_sync/requirements-s3.txt. Keys and endpoint
come from where every program of AWS takes them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws), and from fsspec's own
settings (FSSPEC_S3_ANON=true for public buckets).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fsspec
from yarl import URL

from model_sync import addresses
from model_sync.errors import Passing, Useless
from model_sync.sources import Answer
from model_sync.threads import to_end

# One request for each: S3 answers every read with a request of its own.
REQUEST_BYTES = 8 << 20


class Bucket:
    def __init__(self, *, block_bytes: int) -> None:
        self._block_bytes = block_bytes

    @asynccontextmanager
    async def open(
        self, url: URL, *, offset: int, only_if: str | None, page: bool = False
    ) -> AsyncIterator[Answer]:
        place = addresses.shown(url)
        file, details = await _named(place, lambda: _opened(url))
        try:
            validator = details.get("ETag")
            total = details.get("size")
            changed = only_if is not None and validator != only_if
            start = 0 if changed or (total is not None and offset > total) else offset
            yield Answer(start, total, validator, self._blocks(file, start, place))
        finally:
            await to_end(file.close)

    async def _blocks(self, file: Any, start: int, place: str) -> AsyncGenerator[bytes]:
        await _named(place, lambda: file.seek(start))
        while block := await _named(place, lambda: file.read(REQUEST_BYTES)):
            view = memoryview(block)
            for at in range(0, len(view), self._block_bytes):
                yield bytes(view[at : at + self._block_bytes])


def _opened(url: URL) -> tuple[Any, dict[str, Any]]:
    key = f"{url.host}{url.path}"
    try:
        files = fsspec.filesystem("s3", skip_instance_cache=True)
    except ImportError as error:
        raise Useless("s3:// needs the packages of model_sync/requirements-s3.txt") from error
    details = files.info(key)
    return files.open(key, "rb", cache_type="none", block_size=REQUEST_BYTES), details


async def _named[T](place: str, call: Callable[[], T]) -> T:
    """`call()` in a thread, its errors sorted."""
    try:
        return await to_end(call)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise Useless(f"{place}: {type(error).__name__}") from error
    except OSError as error:
        raise Passing(f"{place}: {type(error).__name__}") from error
    except _refusals() as error:
        raise Useless(f"{place}: {error}") from error
    except _sdk_errors() as error:
        raise Passing(f"{place}: {type(error).__name__}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """No key, half a key, no such profile. Empty where s3fs and so botocore is not there."""
    try:
        from botocore import exceptions  # noqa: PLC0415 - not a requirement of model_sync
    except ImportError:
        return ()
    return (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)


def _sdk_errors() -> tuple[type[Exception], ...]:
    try:
        from botocore import exceptions  # noqa: PLC0415 - as above
    except ImportError:
        return ()
    return (exceptions.BotoCoreError,)
