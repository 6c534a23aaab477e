"""What the vault needs from the world: a place for bytes, rows that say what is where, and the pods' own files."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import BinaryIO, Protocol

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.core.vault.vault import StoredFile


class VaultPart(Protocol):
    """A content on its way in; nothing of it shows under its path until ``keep`` has returned.

    Every call raises StorageUnavailable where the place cannot be written. One of ``keep`` and ``discard`` ends it.
    """

    @property
    def size_bytes(self) -> int:
        """What was written so far."""
        ...

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Append."""
        ...

    async def keep(self, *, modified_ns: int | None) -> None:
        """Make it durable under its path, in place of whatever is there."""
        ...

    async def discard(self) -> None:
        """Throw it away. Never raises."""
        ...


class VaultDisk(Protocol):
    """Where the bytes of kept files are. Paths are relative, with slashes. Raises StorageUnavailable."""

    async def check(self) -> None:
        """Whether it can be written at all. Also clears away what an earlier life left half done."""
        ...

    async def create(self, path: str, expected_bytes: int | None = None) -> VaultPart:
        """Begin a content that is to be kept under this path, and is known to become so large."""
        ...

    def read(self, path: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``stop``, in pieces. Raises FileNotFoundError for an unknown path."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The whole content, to be read in a thread: this blocks. Raises FileNotFoundError too."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a content and the folders that it leaves empty. One that is not there is no error."""
        ...

    async def aclose(self) -> None:
        """Take no more work. Calls in flight are not waited for."""
        ...


class VaultRows(Protocol):
    """What the vault has, in the database. Raises StoreUnavailable."""

    async def add(self, stored: StoredFile) -> None:
        """Write a row. One of the same name and version is replaced."""
        ...

    async def of_pod(self, pod_name: str) -> Sequence[StoredFile]:
        """All that was stored of this pod, by name, then by version."""
        ...

    async def of_names(self, names: Collection[tuple[str, FileName]]) -> Sequence[StoredFile]:
        """All versions stored under these names (alias and the pod's own name), by name, then by version."""
        ...

    async def owners(self) -> Mapping[str, str]:
        """``UserId.key`` by alias, of every alias under which something is stored."""
        ...

    async def total_bytes(self) -> int:
        """Size of everything that is stored."""
        ...

    async def oldest(self, limit: int, *, before: datetime | None = None) -> Sequence[StoredFile]:
        """The contents that were stored first, oldest first; only those from before that time where one is given."""
        ...

    async def remove(self, stored: StoredFile) -> None:
        """Remove the row."""
        ...


@dataclass(frozen=True, slots=True)
class PodPlace:
    """Where a pod's files are to be had."""

    user_key: str
    backend: Backend
    """Its ComfyUI; the id is the pod's name."""
    agent_url: str
    """That of a telemetry sample."""
    agent_token: str = field(repr=False)


class Found(Enum):
    """What a server said about a file."""

    CONTENT = auto()
    SAME = auto()
    """The content is the one that the caller has."""
    NOTHING = auto()
    """There is no such file."""
    REFUSED = auto()
    """The server will never give a file of that name."""
    CHANGED = auto()
    """The content that the caller wants to go on with is there no more."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """An answer whose body is being read."""

    found: Found
    chunks: AsyncIterator[bytes]
    """Of CONTENT. Raises PodFilesUnavailable when the connection breaks."""
    offset: int = 0
    """Where the chunks begin: what was asked for, or 0 when the server begins anew."""
    total_bytes: int | None = None
    """Size of the whole content, or None when the server does not tell."""
    etag: str | None = None
    """See ``core.vault.vault.usable_etag``."""


@dataclass(frozen=True, slots=True)
class ListedOutput:
    """One file in a pod's output folder, as its agent lists it."""

    path: str
    size_bytes: int
    etag: str


class PodFiles(Protocol):
    """Reads what a pod has made. Every call raises PodFilesUnavailable when the pod gives no usable answer."""

    def from_comfyui(
        self,
        place: PodPlace,
        file: FileName,
        *,
        offset: int = 0,
        etag: str | None = None,
        had: str | None = None,
    ) -> AbstractAsyncContextManager[FileAnswer]:
        """``GET /view``. ``had``: the tag of the content that the caller has; the answer may be SAME.

        With an ``offset`` and its ``etag`` the server is asked for the rest of that content; a server that does not
        know how to do this begins anew.
        """
        ...

    def from_agent(
        self,
        place: PodPlace,
        file: FileName,
        *,
        offset: int = 0,
        etag: str | None = None,
        had: str | None = None,
    ) -> AbstractAsyncContextManager[FileAnswer]:
        """The same by the agent, which has outputs only; it answers also when ComfyUI has died."""
        ...

    async def unfetched(self, place: PodPlace) -> Sequence[ListedOutput] | None:
        """Outputs of this pod's life of which the agent was not told that they are safe. None: it keeps no such list.

        Renews the pod's lease.
        """
        ...

    async def note_fetched(self, place: PodPlace, outputs: Collection[tuple[str, str]]) -> None:
        """Tell the agent that these contents (path and tag) are safe. Renews the pod's lease."""
        ...
