"""What ComfyUI made, and which of it is safe elsewhere. Blocking; called in threads."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.folders import Folder, FoundFile


@dataclass(frozen=True, slots=True)
class Listed:
    file: FoundFile
    is_fetched: bool


class Outputs:
    """The output folder and, in memory, what was fetched from it.

    born_s  seconds since the epoch: files from before are not of this pod's work and need not be fetched
    """

    def __init__(self, root: Path, born_s: float) -> None:
        self._folder = Folder(root)
        self._born_ns = int(born_s * 1e9)
        self._fetched: dict[str, str] = {}

    def page(self, *, after: str, limit: int, only_unfetched: bool) -> tuple[list[Listed], str | None]:
        """So many files behind this path, and the path after which the next page begins: None at the end.

        Raises OSError.
        """
        page: list[Listed] = []
        for file in self._folder.files():
            if file.path <= after or (only_unfetched and not self._waits(file)):
                continue
            if len(page) == limit:
                return page, page[-1].file.path
            page.append(Listed(file, self._is_fetched(file)))
        return page, None

    def place(self, path: PurePosixPath) -> Path | None:
        """See Folder.existing."""
        return self._folder.existing(path)

    def fetched(self, path: str, etag: str) -> None:
        """Somebody has this content of this file."""
        self._fetched[path] = etag

    def unfetched(self) -> int:
        """How many files of this pod's work nobody has. Empty ones are no work. Raises OSError."""
        files = list(self._folder.files())
        present = {file.path for file in files}
        for path in [path for path in self._fetched if path not in present]:
            self._fetched.pop(path, None)
        return sum(self._waits(file) for file in files)

    def _waits(self, file: FoundFile) -> bool:
        return file.size_bytes > 0 and file.modified_ns >= self._born_ns and not self._is_fetched(file)

    def _is_fetched(self, file: FoundFile) -> bool:
        return self._fetched.get(file.path) == file.etag
