"""Kept files at any address that fsspec knows: ``s3://bucket/folder``, ``gs://``, ``sftp://``, ``memory://``.

Credentials come from where the service's own tools have them (for S3: AWS_ACCESS_KEY_ID and so on, and
FSSPEC_S3_ENDPOINT_URL for a store that is not Amazon's). Object stores show an object when its last part has arrived;
other places show a file while it grows, which does no harm: nothing names a file before it is whole.
"""

import contextlib
import io
from typing import Any, BinaryIO, Final

import fsspec

MAX_WHOLE_BYTES: Final = 256 * 1024 * 1024
BLOCK_BYTES: Final = 8 * 1024 * 1024
"""Parts of an upload: S3 takes 10 000 of them, which is 78 GiB."""


class RemoteFiles:
    """``BlockingFiles`` below an fsspec URL.

    Raises ValueError that says what is wrong with the URL, without repeating it; ImportError's text names the package
    that fsspec lacks.
    """

    def __init__(self, url: str) -> None:
        try:
            self._system, self._root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise ValueError(f"needs a package that is not installed: {error}") from None
        except Exception as error:  # noqa: BLE001 - each file system has its own
            raise ValueError(f"is no address that fsspec can use ({type(error).__name__})") from None

    def check(self) -> None:
        """Write and remove a file: rights to a bucket are known only by using them."""
        place = self._place(".check")
        self._system.makedirs(self._root, exist_ok=True)
        self._system.pipe_file(place, b"0")
        self._system.rm_file(place)

    def create(self, path: str, expected_bytes: int) -> "RemotePart":
        """Begin an upload; nobody can say how much room there is."""
        place = self._place(path)
        self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
        return RemotePart(self._system, place)

    def part_of(self, path: str, start: int, stop: int) -> bytes:
        """One request for a range. Without the file's size in between, which fsspec would ask for on opening it."""
        part: bytes = self._system.cat_file(self._place(path), start=start, end=stop)
        return part

    def open(self, path: str) -> BinaryIO:
        """The content, taken into memory. Raises OSError for one that is too large for that."""
        place = self._place(path)
        if self._system.size(place) > MAX_WHOLE_BYTES:
            raise OSError(f"more than {MAX_WHOLE_BYTES // 1024**2} MiB are not taken into memory")
        return io.BytesIO(self._system.cat_file(place))

    def remove(self, path: str) -> None:
        """The object."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._place(path))

    def meaning_of(self, error: Exception) -> str:
        """The kind of error, and an OSError's own words: others may repeat the address."""
        said = error.strerror if isinstance(error, OSError) else None
        return f"{type(error).__name__}: {said}" if said else type(error).__name__

    def _place(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


class RemotePart:
    """An upload."""

    def __init__(self, system: Any, place: str) -> None:
        self._system = system
        self._place = place
        self._size_bytes = 0
        self._file = system.open(place, "wb", block_size=BLOCK_BYTES, autocommit=False)

    def write(self, chunk: bytes) -> None:
        """Append; sent whenever a block is full."""
        self._file.write(chunk)
        self._size_bytes += len(chunk)

    def keep(self, modified_ns: int | None) -> None:
        """Send the rest, and have the whole become an object. Raises OSError when it has another size then.

        Its time of writing is the store's own.
        """
        self._file.close()
        self._file.commit()
        self._system.invalidate_cache(self._place)
        if self._system.size(self._place) != self._size_bytes:
            raise OSError("the store has another size than was sent")

    def discard(self) -> None:
        """Give the upload up, and remove what is visible of it."""
        with contextlib.suppress(Exception):  # each store has its own way to say that there was nothing
            self._file.discard()
        with contextlib.suppress(Exception):
            # Else its destructor would send what it still holds.
            self._file.closed = True
        with contextlib.suppress(Exception):
            self._system.rm_file(self._place)
