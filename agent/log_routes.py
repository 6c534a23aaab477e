"""/logs: the end of ComfyUI's log."""

import asyncio
from pathlib import Path

from aiohttp import web

USUAL_LINES = 200
MOST_LINES = 5000
MOST_BYTES = 1024 * 1024


def tail(path: Path, lines: int, most_bytes: int = MOST_BYTES) -> tuple[list[str], int]:
    """The last lines, of the last `most_bytes` at most, and the file's size. Blocking. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - most_bytes)
        file.seek(start)
        found = file.read(most_bytes).split(b"\n")
    if start > 0:
        found = found[1:]  # begins somewhere within a line
    if found and not found[-1]:
        found.pop()
    return [line.decode("utf-8", "replace").rstrip("\r") for line in found[-lines:]], size


class LogRoutes:
    def __init__(self, path: Path) -> None:
        self._path = path

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/logs", self.logs)]

    async def logs(self, request: web.Request) -> web.Response:
        told = request.query.get("lines", str(USUAL_LINES))
        if not (told.isascii() and told.isdigit()) or not 1 <= int(told) <= MOST_LINES:
            raise web.HTTPBadRequest(text=f"lines: 1 to {MOST_LINES}")
        try:
            lines, size = await asyncio.to_thread(tail, self._path, int(told))
        except OSError as error:
            raise web.HTTPNotFound(text="there is no log") from error
        return web.json_response({"lines": lines, "size_bytes": size})
