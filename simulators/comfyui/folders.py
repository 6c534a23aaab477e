"""Where the server keeps its files, and which names may reach them (folder_paths.py)."""

import asyncio
import mimetypes
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

mimetypes.add_type("image/webp", ".webp")  # server.py:145
TYPES = ("output", "input", "temp")


@dataclass(frozen=True)
class Folders:
    """Absolute folders, made at start; `temp` begins empty each time, as main.py:178 has it."""

    output: Path
    input: Path
    temp: Path
    user: Path
    _writes: set["asyncio.Future[Any]"] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def in_(cls, base: Path) -> "Folders":
        return cls(base / "output", base / "input", base / "temp", base / "user")

    def make(self) -> None:
        self.wipe_temp()
        for folder in (self.output, self.input, self.user):
            folder.mkdir(parents=True, exist_ok=True)

    def wipe_temp(self) -> None:
        shutil.rmtree(self.temp, ignore_errors=True)
        self.temp.mkdir(parents=True, exist_ok=True)

    async def write[**P, T](self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have ``work`` write here in a thread. A caller that is cancelled leaves it running: see ``settled``."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(None, partial(work, *args, **kwargs))
        self._writes.add(writing)
        writing.add_done_callback(self._written)
        return await asyncio.shield(writing)

    async def settled(self) -> None:
        """Return when no thread writes here any more. Whoever could begin to must have ended."""
        while self._writes:
            await asyncio.wait(set(self._writes))

    def _written(self, writing: "asyncio.Future[Any]") -> None:
        self._writes.discard(writing)
        if not writing.cancelled():
            writing.exception()  # whoever still waits has it; of one that nobody waits for nobody need hear

    def of_type(self, kind: str) -> Path | None:
        """The folder that `type=output|input|temp` names, or None for another word."""
        return {"output": self.output, "input": self.input, "temp": self.temp}.get(kind)

    def named(self, annotated: str) -> Path:
        """The file that an input like `b.png` or `b.png [output]` names, wherever that leads: nothing keeps it
        in its folder (folder_paths.py:178, get_annotated_filepath)."""
        name, kind = split_annotation(annotated)
        return (self.of_type(kind or "input") or self.input) / name

    def inputs(self, *content_types: str) -> list[str]:
        """Names that a loader offers: files directly in the input folder, of these kinds ("image", "video"…)
        by their ending; of every kind without one (nodes.py:1634, folder_paths.py:145)."""
        names = sorted(entry.name for entry in os.scandir(self.input) if entry.is_file())
        return [name for name in names if not content_types or content_type(name) in content_types]


def content_type(name: str) -> str | None:
    """The first half of the MIME type that a file's ending says, None where it says none."""
    told = mimetypes.guess_type(name, strict=False)[0]
    return told.split("/")[0] if told else None


def split_annotation(name: str) -> tuple[str, str | None]:
    """`b.png [temp]` -> ("b.png", "temp"); a name without an annotation comes back with None."""
    for kind in TYPES:
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 3], kind
    return name, None


def below(root: Path, *parts: str) -> Path | None:
    """The path that the parts name below root, or None when they lead out of it. Root is below root."""
    # Path.resolve would follow links, and out of the folder with them.
    path = os.path.abspath(os.path.join(root, *parts))  # noqa: PTH100, PTH118
    if os.path.commonpath((root, path)) != str(root):
        return None
    return Path(path)
