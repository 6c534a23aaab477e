"""/view, and a route such as packs of custom nodes have that names a file as well."""

import asyncio
import io
import mimetypes
from pathlib import Path

from aiohttp import web
from PIL import Image

from simulators.comfyui.folders import Folders, below, split_annotation

UNSAFE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}


class ViewRoutes:
    def __init__(self, folders: Folders, *, newer: bool) -> None:
        self._folders = folders
        self._headers = {"X-Content-Type-Options": "nosniff"} if newer else {}

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/view", self.view), web.get("/simpack/viewfile", self.view_file)]

    async def view(self, request: web.Request) -> web.StreamResponse:
        """server.py:425."""
        query = request.query
        path = self._asked_for(request)
        disposition = {"Content-Disposition": f'filename="{path.name}"'}
        channel = query.get("channel", "rgba")
        if "preview" in query:
            picture, kind = await asyncio.to_thread(
                _preview, path, query["preview"], query.get("channel", "")
            )
            return web.Response(body=picture, content_type=f"image/{kind}", headers=disposition)
        if channel in ("rgb", "a"):
            picture = await asyncio.to_thread(_only, path, channel)
            return web.Response(body=picture, content_type="image/png", headers=disposition)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        safe = "application/octet-stream" if kind in UNSAFE_TYPES else kind
        return web.FileResponse(path, headers={**disposition, "Content-Type": safe, **self._headers})

    async def view_file(self, request: web.Request) -> web.StreamResponse:
        """The file as it is, whatever it is: what packs offer for films."""
        return web.FileResponse(self._asked_for(request))

    def _asked_for(self, request: web.Request) -> Path:
        if "filename" not in request.query:
            raise web.HTTPNotFound(text="")
        query = request.query
        return existing(
            self._folders, query["filename"], query.get("type", "output"), query.get("subfolder", "")
        )


def existing(folders: Folders, annotated: str, kind: str, subfolder: str) -> Path:
    """Raises the answer where there is no file: 400 for a bad name or type, 403 outside, 404 else."""
    name, annotation = split_annotation(annotated)
    if not name or name.startswith("/") or ".." in name:
        raise web.HTTPBadRequest(text="")
    root = folders.of_type(annotation or kind)
    if root is None:
        raise web.HTTPBadRequest(text="")
    folder = below(root, subfolder)
    if folder is None:
        raise web.HTTPForbidden(text="")
    path = folder / Path(name).name
    if not path.is_file():
        raise web.HTTPNotFound(text="")
    return path


def _preview(path: Path, wish: str, channel: str) -> tuple[bytes, str]:
    """`wish` is `webp;90` or `jpeg;80`; returns the picture and its format."""
    words = wish.split(";")
    kind = words[0] if words[0] in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(words[-1]) if words[-1].isdigit() else 90
    with Image.open(path) as image:
        picture: Image.Image = image.convert("RGB") if kind == "jpeg" or channel == "rgb" else image
        buffer = io.BytesIO()
        picture.save(buffer, format=kind, quality=quality)
    return buffer.getvalue(), kind


def _only(path: Path, channel: str) -> bytes:
    """The picture as PNG with its colours only ("rgb"), or its alpha only ("a")."""
    with Image.open(path) as image:
        if channel == "rgb":
            picture = image.convert("RGB")
        else:
            alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
            picture = Image.new("RGBA", image.size)
            picture.putalpha(alpha)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
