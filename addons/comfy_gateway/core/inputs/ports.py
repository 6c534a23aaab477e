"""What carrying input files needs from the world: a place for contents, rows, and the servers' own folders."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import orjson

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.refs import canonical
from comfy_gateway.core.inputs.uploads import Content, Copy, Kept, Upload
from comfy_gateway.core.requests.upstream import Backend


class InputPart(Protocol):
    """One content on its way into the store. What is not finished when the block is left leaves nothing behind."""

    @property
    def size_bytes(self) -> int:
        """What was written so far."""
        ...

    async def __aenter__(self) -> Self:
        """Raises StorageUnavailable, also when it is known already that the content does not fit."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, chunk: bytes) -> None:
        """Append. Raises StorageUnavailable."""
        ...

    async def finish(self) -> Content:
        """Make it durable under its checksum. Raises StorageUnavailable; nothing is kept then."""
        ...


class InputStore(Protocol):
    """Contents that the gateway keeps, by their checksum."""

    def find(self, sha256: str) -> Content | None:
        """What is kept, or None. Answered from memory."""
        ...

    def path(self, sha256: str) -> Path:
        """Where the content of that checksum is, or would be. It can be removed at any time: be ready for that."""
        ...

    def all(self) -> list[Kept]:
        """Everything, what was not used for longest first."""
        ...

    def part(self, size_bytes: int | None = None) -> InputPart:
        """A new content, to be written within ``async with``; ``size_bytes`` where it is known already."""
        ...

    async def used(self, sha256: str) -> None:
        """Note that the content is of use just now. Raises StorageUnavailable."""
        ...

    async def remove(self, sha256: str) -> None:
        """Remove a content; one that is not there is no error. Raises StorageUnavailable."""
        ...


class UploadRows(Protocol):
    """Where uploads and copies survive a restart. Raises StoreUnavailable."""

    async def load_uploads(self, newest: int) -> Sequence[Upload]:
        """The newest uploads, oldest first."""
        ...

    async def load_copies(self, most: int) -> Sequence[Copy]:
        """So many copies at most."""
        ...

    async def write_uploads(
        self,
        *,
        uploads: Collection[Upload] = (),
        gone_uploads: Collection[Upload] = (),
        copies: Collection[Copy] = (),
        gone_copies: Collection[tuple[str, FileName]] = (),
    ) -> None:
        """Write all of it in one transaction. A copy replaces the one of the same place and name."""
        ...


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a server says of a file without giving it."""

    size_bytes: int | None
    etag: str


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file on its way from a server."""

    chunks: AsyncIterator[bytes]
    """Raises BackendUnavailable when it breaks off."""
    size_bytes: int | None
    etag: str
    """Empty where the server tells none."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The server still has the content of that tag."""


@dataclass(frozen=True, slots=True)
class FormAnswer:
    """What a server answered to an upload."""

    status: int
    body: bytes
    content_type: str

    @property
    def stored_as(self) -> FileName | None:
        """The file by ``{"name", "subfolder", "type"}``, or None where nothing was taken or it cannot be carried."""
        if self.status != 200:
            return None
        try:
            told = orjson.loads(self.body)
            return canonical(FileName(told["name"], told["subfolder"], told["type"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True, slots=True)
class FormFile:
    """The file in the form of an upload."""

    path: Path
    size_bytes: int
    filename: str
    content_type: str = "application/octet-stream"


class InputServer(Protocol):
    """Reads and fills the folders of a ComfyUI server. Every call raises BackendUnavailable."""

    async def look(self, backend: Backend, file: FileName) -> FileFacts | None:
        """Whether the file is there; None when it is not, or can never be read under that name."""
        ...

    def read(
        self, backend: Backend, file: FileName, *, etag: str = ""
    ) -> AbstractAsyncContextManager[FileBody | Unchanged | None]:
        """The file; Unchanged when it still bears ``etag``; None as for ``look``."""
        ...

    async def names(self, backend: Backend, folder: str) -> Sequence[str]:
        """Names directly in ``input``, ``output`` or ``temp``. Newer cores annotate them: ``a.png [temp]``."""
        ...

    async def post_form(
        self,
        backend: Backend,
        kind: str,
        fields: Sequence[tuple[str, str]],
        file: FormFile | None,
        headers: Mapping[str, str] | None = None,
    ) -> FormAnswer:
        """``POST /upload/image`` or ``mask``, streamed from the disk. Also raises FileNotFoundError."""
        ...


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """Where a pod's agent is."""

    url: str
    """That of a telemetry sample."""
    token: str = field(repr=False)


class AgentInputs(Protocol):
    """Brings files into a pod by its agent, in parts: the proxy in front of it takes no body over 100 MB."""

    async def put_input(
        self, place: AgentPlace, file: FileName, source: Path, content: Content, *, replace: bool
    ) -> bool:
        """Bring a file into the input folder. False: another file has the name, and ``replace`` was not wished.

        Goes on where an earlier attempt broke off. Raises AgentUnavailable when the agent does not take it.
        """
        ...
