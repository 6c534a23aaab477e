"""What a pod's agent tells of the files that ComfyUI made: docs/agent.md, "What ComfyUI made"."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

MOST_LISTED = 10_000
USUALLY_LISTED = 1000
NUMBER = re.compile(r"[0-9]{1,15}")


class BadPathError(ValueError):
    """A name that the agent does not touch."""


@dataclass(frozen=True)
class MadeFile:
    path: str
    size_bytes: int
    modified_ns: int

    @property
    def etag(self) -> str:
        """As aiohttp says it in the header."""
        return f"{self.modified_ns:x}-{self.size_bytes:x}"


class Outputs:
    """born_ns  time since the epoch: older files need not be fetched"""

    def __init__(self, root: Path, born_ns: int) -> None:
        self._root = root
        self._born_ns = born_ns
        self.fetched: dict[str, str] = {}

    async def list(self, query: Mapping[str, str]) -> web.Response:
        limit = number(query, "limit", USUALLY_LISTED)
        if not 1 <= limit <= MOST_LISTED:
            raise web.HTTPBadRequest(text=f"limit: 1 to {MOST_LISTED}")
        files = await asyncio.to_thread(sorted, _files_below(self._root, ""), key=lambda file: file.path)
        behind = [file for file in files if file.path > query.get("after", "")]
        if query.get("unfetched") == "1":
            behind = [file for file in behind if self._waits(file)]
        page = behind[:limit]
        told = [
            {
                "path": file.path,
                "size_bytes": file.size_bytes,
                "modified": file.modified_ns / 1e9,
                "etag": file.etag,
                "fetched": self._is_fetched(file),
            }
            for file in page
        ]
        following = page[-1].path if len(behind) > limit else None
        return web.json_response({"files": told, "next": following})

    async def read(self, path: str) -> web.StreamResponse:
        place = place_of(self._root, path)
        if not place.is_file():
            raise web.HTTPNotFound(text="there is no such file")
        return _Delivery(place, path, self.fetched)

    async def note(self, request: web.Request) -> web.Response:
        try:
            pairs = [(one["path"], one["etag"]) for one in (await request.json())["files"]]
        except (ValueError, TypeError, KeyError) as error:
            raise web.HTTPBadRequest(text='{"files": [{"path": "…", "etag": "…"}]} is meant') from error
        self.fetched.update(pairs)
        return web.json_response({"noted": len(pairs)})

    def _waits(self, file: MadeFile) -> bool:
        return file.size_bytes > 0 and file.modified_ns >= self._born_ns and not self._is_fetched(file)

    def _is_fetched(self, file: MadeFile) -> bool:
        return self.fetched.get(file.path) == file.etag


class _Delivery(web.FileResponse):
    """Counts as fetched when all of it was sent."""

    def __init__(self, place: Path, path: str, fetched: dict[str, str]) -> None:
        headers = {"Content-Type": "application/octet-stream", "Cache-Control": "no-store"}
        super().__init__(place, headers=headers)
        self._path_below = path
        self._fetched = fetched

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        if request.method == "GET" and self.status == 200 and self.etag is not None:
            self._fetched[self._path_below] = self.etag.value
        return writer


def place_of(root: Path, path: str) -> Path:
    """Where this path lies. Raises BadPathError for hidden and strange names and for links on the way."""
    place = root
    for part in path.split("/"):
        if not part or part.startswith(".") or "\\" in part or not part.isprintable() or len(part) > 255:
            raise BadPathError(
                "a relative path without hidden names, '..', '\\' and control characters is meant"
            )
        place /= part
        if place.is_symlink():
            raise BadPathError("a symbolic link is on the way")
    return place


def number(query: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Raises HTTPBadRequest where there is no whole number and no default."""
    told = query.get(name)
    if told is None and default is not None:
        return default
    if told is None or not NUMBER.fullmatch(told):
        raise web.HTTPBadRequest(text=f"{name}: a whole number")
    return int(told)


def _files_below(folder: Path, prefix: str) -> Iterator[MadeFile]:
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder / entry.name, f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            seen = entry.stat(follow_symlinks=False)
            yield MadeFile(prefix + entry.name, seen.st_size, seen.st_mtime_ns)
